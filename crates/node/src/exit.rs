//! How a process ended: facts from the kernel, in words.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use heliostat_proto::{Fact, Failure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::last_words::LastWords;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// Somebody else waited for our child, so nobody can say.
    Unknown,
}

/// Looks how a child ended; `None` while it runs, and when somebody else waited for it. Its process id stays taken until
/// [`reap`].
pub(crate) fn status(pidfd: &OwnedFd) -> Option<Exit> {
    wait(&WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
}

/// Ends the existence of a child that has ended.
pub(crate) fn reap(pidfd: &OwnedFd) {
    wait(&WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// Ends a child of ours, with its group. Once it was reaped, its process id may be another's, so the group is left alone.
pub(crate) fn kill(pid: u32, pidfd: &OwnedFd) {
    let not_reaped = rustix::process::pidfd_send_signal(pidfd, Signal::KILL).is_ok();
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| not_reaped) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Ends a child, unless it was reaped already. One that the kernel does not let die is left after a while.
pub(crate) fn kill_and_wait(pid: u32, pidfd: &OwnedFd) {
    kill(pid, pidfd);
    let patience = Timespec { tv_sec: 2, tv_nsec: 0 };
    let _ = rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&patience));
    reap(pidfd);
}

/// Ends a child that was never waited for and of which nobody wants to know any more.
pub(crate) fn give_up(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        wait(&WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}

fn wait(child: &WaitId<'_>, options: WaitIdOptions) -> Option<Exit> {
    loop {
        match rustix::process::waitid(child.clone(), options) {
            Ok(Some(status)) => {
                let code = status.exit_status().map(Exit::Code);
                return code.or(status.terminating_signal().map(Exit::Signal));
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

impl Exit {
    pub(crate) fn is_kill(self) -> bool {
        self == Self::Signal(Signal::KILL.as_raw())
    }

    /// Whether it was ended by a signal that programs get from others, and not for what they do.
    pub(crate) fn is_from_outside(self) -> bool {
        const SENT: [Signal; 5] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
        matches!(self, Self::Signal(signal) if SENT.iter().any(|sent| sent.as_raw() == signal))
    }

    /// What the failed task's caller is told. `cause` is said of a kill that it explains; `name` is what ran, empty when
    /// nothing did.
    pub(crate) fn failure(self, pid: u32, cause: &str, name: &str, words: &LastWords) -> Failure {
        let mut message = format!("worker pid={pid} {self}");
        if self.is_kill() {
            message.push_str(cause);
        }
        if !name.is_empty() {
            message = format!("{message} while it ran {name}()");
        }
        let heap = words.heap();
        if !heap.full || matches!(self, Self::Code(0)) {
            return failure(message, self, words);
        }
        message.push_str(": its JavaScript heap was out of memory");
        if let Some(megabytes) = heap.in_use {
            message = format!("{message}, at its limit with {megabytes} MB in use after the last collection");
        }
        failure(message, self, words).hint(
            "Let the task hold less at a time, or give workers a larger heap: start the driver with \
             NODE_OPTIONS=--max-old-space-size=8192, which workers inherit.",
        )
    }

    /// What is told when a worker ended before it could do anything.
    /// `late` is how long it was waited for, when that is why it ended.
    pub(crate) fn start_failure(self, pid: u32, late: Option<Duration>, words: &LastWords) -> Failure {
        let what = match late {
            Some(timeout) => format!("did not connect within {timeout:?}"),
            None => format!("{self} before it connected"),
        };
        failure(format!("workers do not start: pid={pid} {what}"), self, words)
    }
}

fn failure(mut message: String, exit: Exit, words: &LastWords) -> Failure {
    for (index, line) in words.lines().enumerate() {
        message.push_str(if index == 0 { "\nlast lines of its stderr:\n  " } else { "\n  " });
        message.push_str(line);
    }
    let (code, signal) = match exit {
        Exit::Code(code) => (Fact::Number(code.into()), Fact::Absent),
        Exit::Signal(signal) => (Fact::Absent, Fact::Text(signal_name(signal))),
        Exit::Unknown => (Fact::Absent, Fact::Absent),
    };
    Failure::new("WORKER_CRASHED", message).fact("exitCode", code).fact("exitSignal", signal)
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by {}", signal_name(*signal)),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

fn signal_name(raw: i32) -> String {
    const NAMES: [(Signal, &str); 23] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::POWER, "SIGPWR"),
        (Signal::SYS, "SIGSYS"),
    ];
    let known = NAMES.iter().find(|(signal, _)| signal.as_raw() == raw);
    known.map_or_else(|| format!("signal {raw}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: &[&str]) -> LastWords {
        let mut words = LastWords::default();
        for line in lines {
            words.push((*line).to_owned());
        }
        words
    }

    #[test]
    fn a_full_heap_is_said_with_its_size_and_what_to_do() {
        let gc = "[7:0x1] 330 ms: Mark-Compact 41.3 (48.3) -> 40.75 (48.5) MB, 12.1 / 0.0 ms";
        let fatal = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory";
        let failure = Exit::Signal(6).failure(1, "", "train", &words(&[gc, fatal]));
        assert_eq!(
            failure.message.lines().next(),
            Some(
                "worker pid=1 was killed by SIGABRT while it ran train(): its JavaScript heap was out of memory, at its \
                 limit with 40.75 MB in use after the last collection"
            )
        );
        assert!(failure.hint.unwrap().contains("--max-old-space-size"));
    }

    #[test]
    fn only_signals_that_others_send_are_from_outside() {
        assert!(Exit::Signal(9).is_from_outside() && Exit::Signal(15).is_from_outside());
        let own = [Exit::Signal(6), Exit::Signal(11), Exit::Code(1), Exit::Unknown];
        assert!(!own.iter().any(|exit| exit.is_from_outside()));
    }

    #[test]
    fn the_failure_says_how_it_ended_and_what_it_wrote_last() {
        let failure = Exit::Signal(9).failure(123, "", "echo", &words(&["one", "two"]));
        assert_eq!(failure.code, "WORKER_CRASHED");
        assert_eq!(
            failure.message,
            "worker pid=123 was killed by SIGKILL while it ran echo()\nlast lines of its stderr:\n  one\n  two"
        );
        assert_eq!(
            failure.facts,
            [("exitCode".to_owned(), Fact::Absent), ("exitSignal".to_owned(), Fact::Text("SIGKILL".into()))]
        );
    }

    #[test]
    fn a_code_and_an_unusual_signal_have_words_too() {
        assert_eq!(Exit::Code(3).failure(1, "", "", &words(&[])).message, "worker pid=1 exited with code 3");
        assert_eq!(Exit::Signal(40).to_string(), "was killed by signal 40");
        assert_eq!(Exit::Unknown.to_string(), "ended");
    }
}
