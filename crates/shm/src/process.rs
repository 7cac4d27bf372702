//! Who a process is, and knowing from the kernel when it has died.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A process, told apart from any other that later gets the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Process id in the daemon's pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

/// Finding or watching a process failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// No such process, or another one has its pid by now.
    #[error("process {pid} is gone")]
    Gone {
        /// The pid that was asked for.
        pid: u32,
    },
    /// Another error of the kernel.
    #[error("looking at process {pid} failed: {source}")]
    System {
        /// The pid that was asked for.
        pid: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl Identity {
    /// This process.
    pub fn current() -> Result<Self, ProcessError> {
        Self::of(std::process::id())
    }

    /// The process that has this pid now. A zombie counts as gone: it runs no code any more.
    pub fn of(pid: u32) -> Result<Self, ProcessError> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ProcessError::Gone { pid },
            _ if source.raw_os_error() == Some(libc::ESRCH) => ProcessError::Gone { pid },
            _ => ProcessError::System { pid, source },
        })?;
        let (state, start_time) = parse_stat(&stat).ok_or_else(|| ProcessError::System {
            pid,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "unexpected text in /proc/PID/stat"),
        })?;
        if matches!(state, 'Z' | 'X') {
            return Err(ProcessError::Gone { pid });
        }
        Ok(Self { pid, start_time })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// State letter and start time. The name in parentheses may hold spaces and parentheses itself, so the last one counts.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A descriptor that becomes readable when its process ends, and that never names another process.
#[derive(Debug)]
pub struct ProcessFd {
    fd: OwnedFd,
    identity: Identity,
}

impl ProcessFd {
    /// Opens the process, which must still be the one that `identity` names.
    pub fn open(identity: Identity) -> Result<Self, ProcessError> {
        let pid = identity.pid;
        let gone = ProcessError::Gone { pid };
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Err(gone) };
        let fd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ProcessError::Gone { pid },
            _ => ProcessError::System { pid, source: errno.into() },
        })?;
        // Compared after opening: from here on the descriptor can't change its process.
        if Identity::of(pid)? == identity { Ok(Self { fd, identity }) } else { Err(gone) }
    }

    /// The process.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits until it has ended, at most so long; gives whether it has.
    pub fn wait(&self, at_most: Duration) -> bool {
        let timeout = Timespec::try_from(at_most).ok();
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, timeout.as_ref()), Ok(1..))
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) -> std::io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.fd, Signal::KILL)?)
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a ) b) S {rest}")), Some(('S', 22)));
        assert_eq!(parse_stat("7 (x"), None);
        assert_eq!(parse_stat("7 (x) S 1 2"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not_it() {
        let me = Identity::current().unwrap();
        assert!(me.is_alive());
        assert!(!ProcessFd::open(me).unwrap().has_ended());
        let other = Identity { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive());
        assert!(matches!(ProcessFd::open(other), Err(ProcessError::Gone { .. })));
    }

    #[test]
    fn a_killed_child_is_seen_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let watch = ProcessFd::open(Identity::of(child.id()).unwrap()).unwrap();
        assert!(!watch.has_ended());
        watch.kill().unwrap();
        while !watch.wait(Duration::from_secs(1)) {}
        assert!(!watch.identity().is_alive());
        child.wait().unwrap();
        assert!(matches!(ProcessFd::open(watch.identity()), Err(ProcessError::Gone { .. })));
    }
}
