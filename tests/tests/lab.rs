//! `weft lab`: what a topology says is there, and the host is left alone.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::path::{Path, PathBuf};
use std::process::Command;

use weft_tests::{Lab, need, weft};

const PROGRAMS: [&str; 2] = ["ip", "ping"];

/// What a command in a node's namespaces writes, both outputs, and whether it succeeds.
fn inside(lab: &Lab, node: &str, line: &str) -> (bool, String) {
    let name = lab.netns("");
    let mut command = Command::new(weft());
    command.args([
        "lab",
        "exec",
        "--lab",
        name.trim_end_matches('-'),
        node,
        "--",
        "sh",
        "-c",
        line,
    ]);
    said(&mut command)
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Runs `weft lab up` on a topology that is expected to fail, and returns what it says.
fn refused(name: &str, topology: &str) -> String {
    let file = std::env::temp_dir().join(format!("{name}.clab.yaml"));
    std::fs::write(&file, format!("name: {name}\n{topology}")).unwrap();
    let (good, text) = said(Command::new(weft()).args(["lab", "up"]).arg(&file));
    std::fs::remove_file(&file).unwrap();
    assert!(!good, "{text}");
    text
}

fn unique(what: &str) -> String {
    format!("l{}-{what}", std::process::id())
}

#[test]
fn commands_and_state_of_a_lab_never_reach_the_host() {
    if !need(&PROGRAMS) {
        return;
    }
    let mark = unique("mark");
    let topology = format!(
        "topology:\n  nodes:\n    a:\n      binds: ['file:/{mark}-bound', 'file:/etc/{mark}/deep/file:ro', '/{mark}-volume']\n      exec: ['touch /{mark} /etc/{mark}-etc /tmp/{mark} /var/lib/weft/{mark}', 'rm /etc/passwd']\n    b:\n"
    );
    let lab = Lab::up(&topology, &[("file".to_owned(), "here".to_owned())]);
    let (good, text) = inside(
        &lab,
        "a",
        &format!(
            "ls -d /{mark} /etc/{mark}-etc /tmp/{mark} /var/lib/weft/{mark} && ! test -e /etc/passwd && cat /{mark}-bound /etc/{mark}/deep/file && hostname"
        ),
    );
    assert!(good && text.ends_with("hereherea\n"), "{text}");
    assert!(
        !inside(&lab, "b", &format!("ls /{mark}")).0,
        "another node has files of its own"
    );
    assert!(
        !inside(&lab, "a", &format!("echo x >/etc/{mark}/deep/file")).0,
        "read-only"
    );
    assert!(
        !inside(&lab, "a", "echo 1 >/proc/sys/vm/swappiness").0,
        "the host's parameter"
    );
    drop(lab);
    for path in ["", "-bound", "-volume"] {
        assert!(!Path::new(&format!("/{mark}{path}")).exists());
    }
    for folder in ["/etc", "/tmp", "/var/lib/weft"] {
        let left = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = left
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains(&mark))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn bridges_names_parameters_and_order_are_as_the_topology_says() {
    if !need(&PROGRAMS) {
        return;
    }
    let lab = Lab::up(
        "topology:
  nodes:
    switch: {kind: bridge}
    # Words of `ip` are names like others.
    one:
      aliases: [first]
      sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.n.rp_filter: 2}
      exec: ['ip address add 10.0.0.1/24 dev n', 'sleep 0.3', 'echo one >/order']
      binds: ['order:/order']
    two:
      stages: {configure: {wait-for: [{node: one, stage: configure}]}}
      exec: ['ip address add 10.0.0.2/24 dev type', 'echo two >>/order']
      binds: ['order:/order']
    beside: {network-mode: 'container:two'}
  links:
    - endpoints: ['one:n', 'switch:p1']
    - endpoints: ['two:type', 'switch:p2']
      mtu: 1400
",
        &[("order".to_owned(), String::new())],
    );
    assert_eq!(
        std::fs::read_to_string(lab.path("order")).unwrap(),
        "one\ntwo\n"
    );
    for line in [
        "ping -c1 -W5 first",
        "grep -q 10.0.0.2 /etc/hosts",
        "ip link show dev type | grep -q 'mtu 1400'",
    ] {
        let (good, text) = inside(&lab, "beside", line);
        assert!(good, "{line}: {text}");
    }
    let (_, text) = inside(
        &lab,
        "one",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/n/rp_filter",
    );
    assert_eq!(text, "1\n2\n");
}

#[test]
fn a_file_that_an_editor_has_replaced_is_found_at_the_next_reload() {
    if !need(&PROGRAMS) {
        return;
    }
    let config = |name: &str| {
        format!("router: {{ name: {name}, router_id: 192.0.2.1, asn: 64601 }}\nneighbors: []\n")
    };
    let topology = weft_tests::topology::topology(
        &[(
            "r",
            true,
            vec!["ip address add 192.0.2.1/32 dev lo".to_owned()],
        )],
        &[],
    );
    let lab = Lab::up(&topology, &[("r.yaml".to_owned(), config("before"))]);
    lab.converged("r");
    // A new file under the old name, as `sed -i` makes it.
    std::fs::write(
        lab.path("new"),
        config("before") + "networks: [203.0.113.0/24]\n",
    )
    .unwrap();
    std::fs::rename(lab.path("new"), lab.path("r.yaml")).unwrap();
    let name = lab.netns("");
    let reload = ["lab", "reload", "--lab", name.trim_end_matches('-'), "r"];
    assert!(said(Command::new(weft()).args(reload)).0);
    weft_tests::wait_until(
        "the new network",
        std::time::Duration::from_secs(30),
        || (!lab.paths("r", "203.0.113.0/24").is_empty()).then_some(()),
    );
}

#[test]
fn a_program_of_another_name_is_weft_in_its_nodes() {
    if !need(&PROGRAMS) {
        return;
    }
    let (name, folder) = (unique("named"), std::env::temp_dir().join(unique("named")));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("weft-0.2");
    std::fs::copy(weft(), &program).unwrap();
    let file = folder.join("t.clab.yml");
    let text = format!(
        "name: {name}\ntopology: {{nodes: {{r: {{exec: ['weft --version']}}, abcdefghijklm: }}, links: [{{endpoints: ['r:dev', 'abcdefghijklm:fifteen-letters']}}]}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let (up, told) = said(Command::new(&program).args(["lab", "up"]).arg(&file));
    let (down, _) = said(Command::new(&program).args(["lab", "down", &name]));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        up && down && told.contains("r$ weft --version\nweft "),
        "{told}"
    );
}

#[test]
fn a_health_check_that_hangs_has_failed_when_its_time_is_over() {
    if !need(&PROGRAMS) {
        return;
    }
    let topology = "topology:
  nodes:
    a: {cmd: sleep 60, healthcheck: {test: [CMD-SHELL, 'sleep 600; true'], interval: 1, timeout: 1, retries: 2}}
    b: {stages: {configure: {wait-for: [{node: a, stage: healthy}]}}}
";
    let text = refused(&unique("hangs"), topology);
    assert!(
        text.contains("node a: not healthy: `sh -c sleep 600; true` failed 2 times"),
        "{text}"
    );
}

#[test]
fn what_fails_is_said_and_the_rest_is_up() {
    if !need(&PROGRAMS) {
        return;
    }
    let name = unique("fails");
    let broken = std::env::temp_dir().join(format!("{name}.yaml"));
    std::fs::write(&broken, "router: { name: d").unwrap();
    let text = refused(
        &name,
        &format!(
            "topology:
  nodes:
    a: {{exec: ['echo a reason; exit 3', 'touch /after']}}
    b: {{exec: [no-such-program], sysctls: {{net.ipv4.conf.all.rp_filter: many}}}}
    c:
    d: {{binds: ['{}:/etc/weft/weft.yaml']}}
  links:
    - endpoints: ['a:eth1', 'c:eth1']
    - endpoints: ['a:eth2', 'macvlan:no-such-link']
",
            broken.display()
        ),
    );
    std::fs::remove_file(&broken).unwrap();
    let lab = |arguments: &[&str]| said(Command::new(weft()).arg("lab").args(arguments));
    let after = lab(&["exec", "--lab", &name, "a", "--", "ls", "/after"]);
    let link = lab(&[
        "exec", "--lab", &name, "c", "--", "ip", "link", "show", "eth1",
    ]);
    let (down, _) = lab(&["down", &name]);
    assert!(after.0 && link.0 && down, "{text}");
    for part in [
        "is up, without what failed",
        "node a: `echo a reason; exit 3`: exit status: 3: a reason",
        "node b: `no-such-program`: exit status: 127",
        "node b: `sysctls: net.ipv4.conf.all.rp_filter = many`: Invalid argument",
        "link a:eth2: the host has no interface no-such-link",
        "node d: the router ended:\n  error: ",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!Path::new(&format!("/run/netns/{name}-a")).exists());
    assert!(!Path::new(&format!("/run/weft/labs/{name}")).exists());
    let text = refused(&name, "topology:\n  nodes:\n    a: {kind: nokia_srlinux}\n");
    assert!(
        text.contains("node a is of kind `nokia_srlinux`, which needs a container"),
        "{text}"
    );
    let (good, text) = lab(&["down", &name]);
    assert!(
        !good && text.contains(&format!("no lab {name} is up")),
        "{text}"
    );
}

#[test]
fn what_takes_a_container_is_said_and_the_rest_is_up() {
    if !need(&PROGRAMS) {
        return;
    }
    let (name, folder) = (unique("rest"), std::env::temp_dir().join(unique("rest")));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("t.clab.yml");
    let text = format!(
        "name: {name}
topology:
  defaults: {{image: 'small:1'}}
  nodes:
    leaf: {{kind: nokia_srlinux, exec: ['touch /never']}}
    a:
      cmd: '--for-the-image'
      exec: ['ip address add 10.0.0.1/24 dev eth1', 'ash -c \"echo shell\"', 'no-such-program x; true', 'no-such-program y']
    b: {{exec: ['ip address add 10.0.1.2/24 dev eth2'], sysctls: {{net.no.such: 1}}}}
    c: {{mgmt-ipv4: 172.20.20.77, exec: ['ip address add 10.0.1.3/24 dev eth2', 'ip address add 10.0.2.3/24 dev far']}}
  links:
    - endpoints: ['leaf:ethernet-1/1', 'a:eth1']
    - endpoints: ['b:eth2', 'mgmt-net:{name}b']
    - endpoints: ['c:eth2', 'mgmt-net:{name}c']
    - {{type: vxlan, endpoint: {{node: c, interface: far}}, remote: 127.0.0.2, vni: 7, dst-port: 14780}}
"
    );
    // Names of interfaces have 15 octets at most.
    let text = text.replace(&format!("mgmt-net:{name}"), "mgmt-net:port-");
    std::fs::write(&file, text).unwrap();
    let lab = |arguments: &[&str]| said(Command::new(weft()).arg("lab").args(arguments));
    let (up, told) = lab(&["up", file.to_str().unwrap()]);
    let inside =
        |node: &str, line: &str| lab(&["exec", "--lab", &name, node, "--", "sh", "-c", line]);
    let results = [
        inside("leaf", "ip link show ethernet-1-1 && ! ls /never"),
        inside("a", "ip -br link show eth1 | grep UP"),
        inside(
            "b",
            "ping -c1 -W5 10.0.1.3 && ping -c1 -W5 172.20.20.77 && ping -c1 -W5 172.20.20.1",
        ),
        inside(
            "b",
            "! ping -c1 -W5 192.0.2.1 >/tmp/out && grep -i filtered /tmp/out",
        ),
        inside(
            "c",
            "ip route del default dev eth0 && ! grep ^nameserver /etc/resolv.conf",
        ),
        inside(
            "c",
            "ip -d link show far | grep 'vxlan id 7 remote 127.0.0.2'",
        ),
    ];
    let (listed, list) = lab(&["ls"]);
    let (down, _) = lab(&["down", &name]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(up && down && listed, "{told}");
    for (good, text) in results {
        assert!(good, "{text}\n{told}");
    }
    assert!(list.contains("empty"), "{list}");
    for part in [
        "note: node leaf is of kind `nokia_srlinux`, which needs a container: it stands empty",
        "a$ ash -c \"echo shell\"\nshell",
        "not run: a: `--for-the-image`",
        "there is no `no-such-program` here; not run: a: `no-such-program y`",
        "this kernel has no parameter net.no.such: b",
        "small:1 (b, c)",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
}
