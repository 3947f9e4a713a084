//! Signatures of TCP (RFC 2385): what the kernel has refused for them, and the neighbours that do not sign as they should.

use std::net::IpAddr;

use weft_api::types::{Alarm, Signatures};

use crate::cli::human::several;
use crate::router::told::Told;

/// What the kernel has counted in this network namespace; `None` where it signs nothing.
pub(super) fn counted() -> Option<Signatures> {
    read(&std::fs::read_to_string("/proc/thread-self/net/netstat").ok()?)
}

/// Names stand in one line, and their values in the next.
fn read(text: &str) -> Option<Signatures> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let at = names.split(' ').position(|name| name == wanted)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Some(Signatures {
        missing: value("TCPMD5NotFound")?,
        unexpected: value("TCPMD5Unexpected")?,
        // Linux counts these since 4.12.
        wrong: value("TCPMD5Failure").unwrap_or(0),
    })
}

fn all(one: &Signatures) -> u64 {
    one.missing + one.unexpected + one.wrong
}

/// Neighbours that do not sign, and those that are not heard while segments are refused: `down` are those whose sessions are to be signed
/// and are not up, `start` is what had been refused when this router started.
pub(super) fn alarms(
    told: &Told,
    down: &[IpAddr],
    start: Option<Signatures>,
    now: Option<Signatures>,
) -> Vec<Alarm> {
    let mut unsigned: Vec<(&IpAddr, &String)> = told.unsigned.iter().collect();
    unsigned.sort_unstable();
    let unsigned = unsigned.into_iter().map(|(address, why)| Alarm {
        code: "unsigned-session".into(),
        text: format!("the session with {address} is not signed: {why}"),
    });
    let [before, refused] = [start, now].map(|one| one.as_ref().map_or(0, all));
    let since = refused.saturating_sub(before);
    let refused = down.iter().filter(|_| since > 0).map(|address| Alarm {
        code: "signatures-refused".into(),
        text: format!(
            "the session with {address} is to be signed and is not up, and TCP has refused {} since the start, whose signature was missing \
             or wrong: the two ends have different keys, or somebody else sends in the neighbour's name",
            several(since, "segment")
        ),
    });
    unsigned.chain(refused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_counted_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure Other\n\
                    TcpExt: 7 1 2 3 9\nIpExt: InNoRoutes\nIpExt: 4\n";
        let found = read(text).unwrap();
        assert_eq!((found.missing, found.unexpected, found.wrong), (1, 2, 3));
        assert_eq!(read("TcpExt: Other\nTcpExt: 1\n"), None);
    }

    #[test]
    fn a_neighbour_that_does_not_sign_is_named_and_one_that_is_not_heard() {
        let address: IpAddr = [192, 0, 2, 2].into();
        let mut told = Told::default();
        let refused = |missing| {
            Some(Signatures {
                missing,
                ..Signatures::default()
            })
        };
        assert!(alarms(&told, &[address], refused(5), refused(5)).is_empty());
        let found = alarms(&told, &[address], refused(5), refused(7));
        assert!(found[0].text.contains("192.0.2.2") && found[0].text.contains("2 segments "));
        told.unsigned.insert(address, "router `b2` …".into());
        let found = alarms(&told, &[], None, refused(7));
        assert_eq!(
            (found.len(), found[0].code.as_str()),
            (1, "unsigned-session")
        );
    }
}
