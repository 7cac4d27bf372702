//! Who owns a session: what its lock file or marker object says, and whether that process lives.

use std::fmt::Write as _;
use std::time::Duration;

/// A session's owner shows this often that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(60);
/// A session whose owner cannot be asked, because it runs on another machine, counts as dead after this long without one.
pub const EXPIRY: Duration = Duration::from_secs(3600);

const FIRST_LINE: &str = "heliostat-spill 1";

/// A process, so that others can tell whether it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Names the machine's run: another after each boot.
    pub(super) boot: String,
    /// Names the space in which `pid` means something.
    pub(super) pid_namespace: String,
    /// The process.
    pub(super) pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later process with the same number.
    pub(super) start: u64,
    /// For people who look for it.
    pub(super) host: String,
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Dead,
    /// It runs elsewhere: only its heartbeat tells.
    Unknown,
}

/// Whether nobody can own a session any more, whose marker says this and was written so long ago. Who runs on this machine
/// can be asked; others must have been silent.
pub(super) fn is_dead(owner: Option<&Owner>, me: &Owner, silent: Duration) -> bool {
    match owner.map_or(Life::Unknown, |owner| owner.life(me)) {
        Life::Alive => false,
        Life::Dead => true,
        Life::Unknown => silent >= EXPIRY,
    }
}

impl Owner {
    /// This process.
    pub(super) fn this_process() -> Self {
        let read = |path| std::fs::read_to_string(path).map(|text: String| text.trim().to_owned()).unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
        let pid = std::process::id();
        Self {
            boot: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default(),
            pid,
            start: start_time(pid).unwrap_or(0),
            host: read("/proc/sys/kernel/hostname"),
        }
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for (name, value) in [
            ("boot", self.boot.as_str()),
            ("pid-namespace", &self.pid_namespace),
            ("pid", &self.pid.to_string()),
            ("start", &self.start.to_string()),
            ("host", &self.host),
        ] {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut field = |name| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        Some(Self {
            boot: field("boot")?,
            pid_namespace: field("pid-namespace")?,
            pid: field("pid")?.parse().ok()?,
            start: field("start")?.parse().ok()?,
            host: field("host")?,
        })
    }

    fn life(&self, me: &Self) -> Life {
        if self.boot.is_empty() || self.boot != me.boot || self.pid_namespace != me.pid_namespace {
            return Life::Unknown;
        }
        match start_time(self.pid) {
            Some(start) if start == self.start => Life::Alive,
            _ => Life::Dead,
        }
    }
}

/// Field 22 of `/proc/PID/stat`; the second field may hold spaces and parentheses. None for a zombie, which does nothing
/// any more.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_what_it_wrote_and_knows_who_lives() {
        let me = Owner::this_process();
        assert!(me.start > 0 && !me.boot.is_empty() && !me.pid_namespace.is_empty());
        assert_eq!(Owner::from_text(&me.to_text()), Some(me.clone()));
        assert_eq!(me.life(&me), Life::Alive);
        assert_eq!(Owner { start: me.start + 1, ..me.clone() }.life(&me), Life::Dead, "its number was used again");
        assert_eq!(Owner { boot: "another".into(), ..me.clone() }.life(&me), Life::Unknown);
        assert_eq!(Owner { pid_namespace: "pid:[1]".into(), ..me.clone() }.life(&me), Life::Unknown);
        let (elsewhere, again) = (Owner { boot: "another".into(), ..me.clone() }, Owner { start: 1, ..me.clone() });
        let less = Duration::from_secs(3599);
        assert!(!is_dead(Some(&me), &me, EXPIRY * 9), "who lives is not dead, however silent");
        assert!(is_dead(Some(&again), &me, Duration::ZERO));
        for owner in [Some(&elsewhere), None] {
            assert!(!is_dead(owner, &me, less) && is_dead(owner, &me, EXPIRY));
        }
        for text in ["", "heliostat-spill 2\n", "heliostat-spill 1\nboot x\n", "heliostat-spill 1\npid 1\n"] {
            assert_eq!(Owner::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_killed_process_is_dead_before_anybody_waits_for_it() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let owner = Owner { pid: child.id(), start: start_time(child.id()).unwrap(), ..Owner::this_process() };
        assert_eq!(owner.life(&Owner::this_process()), Life::Alive);
        child.kill().unwrap();
        while owner.life(&Owner::this_process()) == Life::Alive {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(owner.life(&Owner::this_process()), Life::Dead);
    }
}
