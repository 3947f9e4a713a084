//! What came out otherwise than a topology says, as nodes come up. One command, program or parameter costs itself alone: the lab is up.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Programs of Debian's packages that topologies call, where the package has another name.
const PACKAGES: [(&str, &[&str]); 34] = [
    ("apache2-utils", &["ab"]),
    ("arping", &["arping"]),
    ("bind9-dnsutils", &["dig", "nslookup", "nsupdate"]),
    ("bird2", &["bird", "birdc"]),
    ("bridge-utils", &["brctl"]),
    ("busybox-static", &["busybox"]),
    ("dnsmasq-base", &["dnsmasq"]),
    ("ebtables", &["ebtables"]),
    (
        "frr",
        &[
            "vtysh",
            "zebra",
            "bgpd",
            "ospfd",
            "watchfrr",
            "frrinit.sh",
            "docker-start",
        ],
    ),
    ("gobgpd", &["gobgp", "gobgpd"]),
    ("ifupdown2", &["ifreload", "ifup", "ifdown", "ifquery"]),
    ("iproute2", &["ip", "bridge", "tc", "ss"]),
    (
        "iptables",
        &["iptables", "ip6tables", "iptables-save", "iptables-restore"],
    ),
    ("iputils-ping", &["ping", "ping6"]),
    ("isc-dhcp-client", &["dhclient"]),
    ("isc-dhcp-server", &["dhcpd"]),
    ("kmod", &["modprobe", "insmod", "lsmod"]),
    ("mtr-tiny", &["mtr"]),
    ("net-tools", &["ifconfig", "route", "netstat", "arp"]),
    ("netcat-openbsd", &["nc"]),
    ("nftables", &["nft"]),
    ("nginx-light", &["nginx"]),
    ("openssh-client", &["ssh", "ssh-keygen", "scp"]),
    ("openssh-server", &["sshd"]),
    (
        "openvswitch-switch",
        &["ovs-vsctl", "ovs-ofctl", "ovs-vswitchd", "ovsdb-server"],
    ),
    ("procps", &["sysctl", "pkill", "pgrep"]),
    ("python3", &["python", "python3"]),
    ("rsyslog", &["rsyslogd"]),
    ("smcroute", &["smcroutectl", "smcrouted"]),
    ("strongswan-starter", &["ipsec"]),
    ("strongswan-swanctl", &["swanctl"]),
    ("systemd", &["systemctl"]),
    ("udhcpc", &["udhcpc"]),
    ("wireguard-tools", &["wg", "wg-quick"]),
];

/// Programs that are packages' own names in Debian.
const SAME: [&str; 23] = [
    "bash",
    "conntrack",
    "curl",
    "ethtool",
    "exabgp",
    "fping",
    "haproxy",
    "hping3",
    "iperf",
    "iperf3",
    "ipset",
    "keepalived",
    "lldpd",
    "nmap",
    "radvd",
    "socat",
    "squid",
    "sudo",
    "suricata",
    "tcpdump",
    "traceroute",
    "tshark",
    "wget",
];

/// What brings programs of an image, which a lab has no use for: programs are the host's.
const INSTALLERS: [&str; 8] = [
    "apk", "apt", "apt-get", "dnf", "microdnf", "pip", "pip3", "yum",
];

/// One thing that is not as the topology says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// A command failed: its line, and how.
    Failed { line: String, how: String },
    /// A command of a node that would be a container was not found: the program, and the line.
    NoProgram { program: String, line: String },
    /// The command of a node is for what its image holds.
    ForImage(String),
    /// The kernel has no such parameter.
    NoParameter(String),
}

/// What was missed, with the node. Threads of nodes write it.
#[derive(Default)]
pub(super) struct Outcome(Mutex<Vec<(String, Miss)>>);

impl Outcome {
    pub(super) fn add(&self, node: &str, misses: impl IntoIterator<Item = Miss>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(misses.into_iter().map(|miss| (node.to_owned(), miss)));
    }

    /// What could not be done here and is no fault of the topology, and what failed: lines for the user, in the order of `nodes`.
    pub(super) fn told<'a>(
        self,
        nodes: impl Iterator<Item = &'a str>,
    ) -> (Vec<String>, Vec<String>) {
        let order: BTreeMap<&str, usize> = nodes.enumerate().map(|(at, name)| (name, at)).collect();
        let mut all = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Stable: the order within a node stays.
        all.sort_by_key(|(node, _)| order.get(node.as_str()).copied());
        let mut failed = Vec::new();
        let mut programs: Vec<(String, Vec<String>)> = Vec::new();
        let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
        let mut images = Vec::new();
        for (node, miss) in all {
            match miss {
                Miss::Failed { line, how } => failed.push(format!("node {node}: `{line}`: {how}")),
                Miss::NoProgram { program, line } => {
                    group(&mut programs, program).push(format!("{node}: `{line}`"));
                }
                Miss::ForImage(line) => images.push(format!("{node}: `{line}`")),
                Miss::NoParameter(name) => group(&mut parameters, name).push(node),
            }
        }
        let parameters = parameters.into_iter().map(|(name, nodes)| {
            format!("this kernel has no parameter {name}: {}", nodes.join(", "))
        });
        let programs = programs.into_iter().map(|(program, lines)| {
            format!(
                "there is no `{program}` here{}; not run: {}",
                source(&program),
                lines.join("; ")
            )
        });
        let images = (!images.is_empty()).then(|| {
            let what = "what an image holds takes these commands, and needs a container";
            format!("{what}; not run: {}", images.join("; "))
        });
        (parameters.chain(images).chain(programs).collect(), failed)
    }
}

/// The list of this key, which is begun where there is none.
fn group(groups: &mut Vec<(String, Vec<String>)>, key: String) -> &mut Vec<String> {
    let at = groups.iter().position(|(there, _)| *there == key);
    let at = at.unwrap_or_else(|| {
        groups.push((key, Vec::new()));
        groups.len() - 1
    });
    &mut groups[at].1
}

/// A command on one line of readable length.
pub(super) fn short(command: &str) -> String {
    const LONGEST: usize = 100;
    let words: Vec<&str> = command.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Where a program comes from, as words behind its name.
pub(super) fn source(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    if INSTALLERS.contains(&name) {
        return " (programs are the host's: install there what it names)".to_owned();
    }
    let found = PACKAGES
        .iter()
        .find(|(_, programs)| programs.contains(&name));
    let package = found.map(|(package, _)| *package);
    match package.or(SAME.contains(&name).then_some(name)) {
        Some(package) => format!(" (Debian's package {package})"),
        None => String::new(),
    }
}

/// The program that a shell did not find, from what it wrote: `sh: 1: NAME: not found`, `bash: line 1: NAME: command not found`.
pub(super) fn not_found(wrote: &str) -> Option<&str> {
    wrote.lines().rev().find_map(|line| {
        let line = line.trim_end();
        let rest = [
            ": command not found",
            ": not found",
            ": No such file or directory",
        ]
        .iter()
        .find_map(|end| line.strip_suffix(end))?;
        let name = rest.rsplit(": ").next()?.trim();
        (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_shells_did_not_find_is_named() {
        for (wrote, expected) in [
            ("sh: 1: vtysh: not found\n", Some("vtysh")),
            ("bash: line 1: brctl: command not found", Some("brctl")),
            (
                "first\nsh: 1: /usr/lib/frr/frrinit.sh: not found\n",
                Some("/usr/lib/frr/frrinit.sh"),
            ),
            ("the host was not found", None),
            ("", None),
        ] {
            assert_eq!(not_found(wrote), expected, "{wrote}");
        }
    }

    #[test]
    fn packages_of_programs_are_known() {
        assert_eq!(source("/sbin/brctl"), " (Debian's package bridge-utils)");
        assert_eq!(source("tcpdump"), " (Debian's package tcpdump)");
        assert!(source("apk").contains("install there"));
        assert_eq!(source("sr_cli"), "");
    }

    #[test]
    fn what_is_missed_is_told_once_for_all_nodes_in_their_order() {
        let outcome = Outcome::default();
        let missing = |line: &str| Miss::NoProgram {
            program: "brctl".to_owned(),
            line: line.to_owned(),
        };
        outcome.add(
            "b",
            [
                missing("brctl addbr x"),
                Miss::NoParameter("net.mpls.x".to_owned()),
            ],
        );
        let failed = Miss::Failed {
            line: "false".to_owned(),
            how: "exit status: 1".to_owned(),
        };
        outcome.add("a", [missing("brctl show"), failed]);
        let (notes, failed) = outcome.told(["a", "b"].into_iter());
        assert_eq!(
            notes,
            [
                "this kernel has no parameter net.mpls.x: b",
                "there is no `brctl` here (Debian's package bridge-utils); not run: a: `brctl show`; b: `brctl addbr x`",
            ]
        );
        assert_eq!(failed, ["node a: `false`: exit status: 1"]);
    }
}
