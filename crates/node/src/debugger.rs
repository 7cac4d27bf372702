//! Debuggers of workers: each worker that listens for one has a port of its own.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

/// Flags by which Node listens for a debugger; after the first two it waits for one before it runs anything.
const FLAGS: [&str; 3] = ["--inspect-brk", "--inspect-wait", "--inspect"];

/// Whether a worker with such flags runs nothing before somebody debugs it.
pub(crate) fn waits(flags: &[String]) -> bool {
    flags.iter().filter_map(|flag| parse(flag)).any(|(name, _)| name != "--inspect")
}

/// The flags for one worker, and its port. Without a port in the flags it gets any that is free, which Node prints. A port
/// that is named is the first worker's; others get the next that are free, as processes of Node's cluster do.
pub(crate) fn with_own_port(flags: Vec<String>, taken: &[u16]) -> (Vec<String>, Option<u16>) {
    let mut debug_port = None;
    let own = |flag: String| {
        let Some((name, place)) = parse(&flag) else { return flag };
        let (host, wanted) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => match place.parse::<u16>() {
                Ok(port) => ("", Some(port)),
                Err(_) => (place, None),
            },
        };
        let colon = if host.is_empty() { "" } else { ":" };
        let port = wanted.map_or(0, |wanted| first_free(host, wanted, taken));
        debug_port = (port > 0).then_some(port);
        format!("{name}={host}{colon}{port}")
    };
    let flags = flags.into_iter().map(own).collect();
    (flags, debug_port)
}

/// `NODE_OPTIONS` of the driver for its workers: they would all ask for its debugger's port.
pub(crate) fn without_debugger(options: &str) -> String {
    options.split(' ').filter(|option| parse(option).is_none()).collect::<Vec<_>>().join(" ")
}

fn parse(flag: &str) -> Option<(&'static str, &str)> {
    FLAGS.iter().find_map(|name| {
        let rest = flag.strip_prefix(name)?;
        if rest.is_empty() { Some((*name, "")) } else { Some((*name, rest.strip_prefix('=')?)) }
    })
}

fn first_free(host: &str, wanted: u16, taken: &[u16]) -> u16 {
    if wanted == 0 {
        return 0;
    }
    let address: IpAddr = host.trim_matches(['[', ']']).parse().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let is_free = |port: &u16| !taken.contains(port) && TcpListener::bind((address, *port)).is_ok();
    // When none is free Node says so.
    (wanted..=u16::MAX).take(1000).find(is_free).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(flag: &str, taken: &[u16]) -> (String, Option<u16>) {
        let (mut flags, port) = with_own_port(vec!["--no-warnings".into(), flag.into()], taken);
        (flags.remove(1), port)
    }

    #[test]
    fn a_port_that_is_not_named_is_any() {
        assert_eq!(own("--inspect", &[]), ("--inspect=0".into(), None));
        assert_eq!(own("--inspect-brk=0.0.0.0", &[]), ("--inspect-brk=0.0.0.0:0".into(), None));
        assert_eq!(own("--inspect=127.0.0.1:0", &[]), ("--inspect=127.0.0.1:0".into(), None));
        assert_eq!(own("--inspector", &[]), ("--inspector".into(), None));
    }

    #[test]
    fn a_named_port_is_the_first_workers_and_the_next_free_ones_the_others() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flag, got) = own(&format!("--inspect-brk=127.0.0.1:{port}"), &[]);
        assert_eq!(flag, format!("--inspect-brk=127.0.0.1:{}", got.unwrap()));
        assert_ne!(got, Some(port), "somebody listens there");
        drop(listener);
        assert_ne!(own(&format!("--inspect={port}"), &[port]).1, Some(port), "another worker has it");
    }

    #[test]
    fn workers_do_not_wait_for_the_drivers_debugger() {
        assert_eq!(without_debugger("--inspect-brk=9229 --max-old-space-size=50 --inspect"), "--max-old-space-size=50");
        assert!(waits(&["--inspect-brk=0".into()]) && waits(&["--inspect-wait".into()]));
        assert!(!waits(&["--inspect".into(), "--inspect-publish-uid=http".into()]));
    }
}
