use super::*;

fn config(labels: (u32, u32), order: &str) -> Config {
    let text = format!(
        "router: {{ name: a, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1 }}
tenants:
  - {{ name: red, vni: 10001, interfaces: [red0], services: [
      {{ name: firewall, label: {} }},
      {{ name: inspection, label: {} }}],
      chains: [{{ name: web, match: {{ source: [10.0.1.0/24] }}, services: [{order}] }}] }}
neighbors:
  - {{ address: 10.255.1.2, asn: 64602 }}
",
        labels.0, labels.1
    );
    Config::parse("a.yaml", &text).unwrap()
}

const THERE: &str = "firewall, inspection";
const TURNED: &str = "inspection, firewall";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("weft-history-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_restart_knows_what_ran() {
    let folder = Folder::new("restart");
    let open = || History::open(Some(&folder.0), "a").unwrap();
    let mut history = open();
    history.check(&config((20001, 20002), THERE)).unwrap();
    assert_eq!(history.before(&config((20001, 20002), THERE)), None);
    history.add(&config((20001, 20002), THERE));
    drop(history);

    let mut history = open();
    let error = history.check(&config((20001, 20002), TURNED)).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("Give `firewall` and `inspection` another label")
            && error.contains("chains.json"),
        "{error}"
    );
    history.check(&config((20001, 20002), THERE)).unwrap();
    assert_eq!(history.before(&config((20001, 20002), THERE)), None);
    let wanted = config((20011, 20012), TURNED);
    history.check(&wanted).unwrap();
    // The chains are the old ones, everything else is what is wanted.
    assert_eq!(history.before(&wanted), Some(config((20001, 20002), THERE)));
    history.add(&wanted);
    drop(history);

    // Others may have the first one still, and another router's are its own.
    let mut history = open();
    history.check(&config((20001, 20002), TURNED)).unwrap_err();
    assert_eq!(history.before(&wanted), None);
    let other = History::open(Some(&folder.0), "b").unwrap();
    other.check(&config((20001, 20002), TURNED)).unwrap();

    // What runs again stands once, as the last.
    history.add(&config((20001, 20002), THERE));
    assert_eq!(history.versions.len(), 2);
    assert_eq!(history.before(&config((20001, 20002), THERE)), None);
}

#[test]
fn what_is_on_disk_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("secret");
    let mut history = History::new(Some(&folder.0), "a");
    history.add(&config((20001, 20002), THERE));
    let file = folder.0.join("a").join(FILE);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("inspection") && !text.contains("10.255.1.2"),
        "{text}"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_cannot_be_read_is_told_and_written_anew() {
    let folder = Folder::new("broken");
    let file = folder.0.join("a").join(FILE);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for text in ["", "{}", "[\"router: {\"]"] {
        fs::write(&file, text).unwrap();
        assert!(History::open(Some(&folder.0), "a").is_err(), "{text}");
        History::new(Some(&folder.0), "a").add(&config((20001, 20002), TURNED));
        let history = History::open(Some(&folder.0), "a").unwrap();
        history.check(&config((20001, 20002), THERE)).unwrap_err();
    }
}

#[test]
fn nobody_else_reads_what_ran() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("private");
    let mut history = History::open(Some(&folder.0), "a").unwrap();
    history.add(&config((20001, 20002), THERE));
    let own = folder.0.join("a");
    let modes = || {
        [own.clone(), own.join(FILE)].map(|path| {
            let there = fs::metadata(path).unwrap();
            there.permissions().mode() & 0o777
        })
    };
    assert_eq!(modes(), [0o700, 0o600]);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(own.join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
    history.keep_private();
    assert_eq!(modes(), [0o700, 0o600]);
}
