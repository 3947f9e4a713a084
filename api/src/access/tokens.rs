//! A file of tokens: who may use the API, without their secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tracing::warn;

use super::fresh::{self, Stamp, stamp};
use crate::token::{TokenText, same};

/// Tokens in a file, at most: each is looked at by hand.
const MOST: usize = 10_000;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looking at everything.
    Read,
    /// Sending packets besides.
    Operate,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "operate" => Ok(Self::Operate),
            _ => Err(format!("`{text}` is no role: `read` or `operate`")),
        }
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its public part.
    pub id: String,
    /// What it is good for.
    pub role: Role,
    /// SHA-256 of its secret, in hexadecimal.
    hash: String,
    /// Whose it is, for humans; may be empty.
    pub name: String,
}

impl Known {
    /// What is kept of a token.
    pub fn new(token: &TokenText, role: Role, name: &str) -> Self {
        Self {
            id: token.id.clone(),
            role,
            hash: token.hash(),
            name: name.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
        let id = word("the id")?.to_owned();
        let role = word("the role")?.parse()?;
        let hash = word("the hash")?.to_ascii_lowercase();
        if hash.len() != 64 || !hash.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err("the hash has not 64 hexadecimal digits".to_owned());
        }
        let name = words.collect::<Vec<_>>().join(" ");
        Ok(Self {
            id,
            role,
            hash,
            name,
        })
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} ({}", self.id, self.role)?;
        if !self.name.is_empty() {
            write!(f, ", {}", self.name.escape_debug())?;
        }
        f.write_str(")")
    }
}

/// Lets those read a new file who could read the one that it takes the place of, and else the group of its folder, where that is another than the
/// writer's: root makes what a router reads that runs as a user of its own.
///
/// # Errors
/// Of the files.
pub fn share(path: &Path, before: Option<&Metadata>) -> std::io::Result<()> {
    if let Some(before) = before {
        chown(path, Some(before.uid()), Some(before.gid()))?;
        return std::fs::set_permissions(path, before.permissions());
    }
    let folder = path.parent().map(std::fs::metadata).transpose()?;
    let Some(group) = folder.map(|folder| folder.gid()) else {
        return Ok(());
    };
    // Who is not of that group keeps it to himself.
    if std::fs::metadata(path)?.gid() != group && chown(path, None, Some(group)).is_ok() {
        std::fs::set_permissions(path, Permissions::from_mode(0o640))?;
    }
    Ok(())
}

/// A file of tokens, a line each: id, role, SHA-256 of the secret, whose it is. What changes in it holds from the next look on; one
/// that cannot be read has no tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    path: PathBuf,
    /// Of what was read.
    stamp: Option<Stamp>,
    known: Arc<BTreeMap<String, Known>>,
}

impl Tokens {
    /// The tokens of a file. Nothing is read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: None,
            known: Arc::default(),
        }
    }

    /// The tokens of a file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let known = Arc::new(read(path)?);
        Ok(Self {
            known,
            ..Self::new(path.to_owned())
        })
    }

    /// Reads the file, where it is another than before or could not be read; gives what is wrong with it then.
    pub(super) fn look(&mut self) -> Option<Result<(), String>> {
        let stamp = stamp(&self.path);
        if matches!(&stamp, Ok(stamp) if self.stamp == Some(*stamp)) {
            return None;
        }
        let fresh = stamp.and_then(|stamp| Ok((stamp, read(&self.path)?)));
        let wrong = |error: &std::io::Error| format!("{}: {error}", self.path.display());
        let found = fresh.as_ref().map(drop).map_err(wrong);
        (self.stamp, self.known) = match fresh {
            Ok((stamp, known)) => (Some(stamp), Arc::new(known)),
            Err(_) => Default::default(),
        };
        Some(found)
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Known> {
        self.known.values().cloned().collect()
    }

    /// Whom a token shows.
    pub(super) fn check(&self, shown: &TokenText) -> Option<Known> {
        let known = self.known.get(&shown.id)?;
        same(&known.hash, &shown.hash()).then(|| known.clone())
    }
}

/// A line that is none costs itself alone.
fn read(path: &Path) -> std::io::Result<BTreeMap<String, Known>> {
    let octets = fresh::read(path)?;
    let text = String::from_utf8_lossy(&octets);
    let mut all = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match Known::parse(line) {
            Ok(_) if all.len() == MOST => {
                warn!("{}: more than {MOST} tokens", path.display());
                break;
            }
            Ok(known) => {
                all.insert(known.id.clone(), known);
            }
            Err(error) => warn!("{}:{number}: {error}", path.display()),
        }
    }
    Ok(all)
}

/// Who changes the file is alone with it, for as long as this is held: what one takes back another would else write again.
fn lock(path: &Path) -> std::io::Result<File> {
    let folder = path.parent().filter(|one| !one.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    folder.lock()?;
    Ok(folder)
}

/// Writes the file of tokens anew, whole or not at all; whoever calls has it locked.
fn write(path: &Path, all: &BTreeMap<String, Known>) -> std::io::Result<()> {
    let mut text =
        "# Tokens of the API: id, role, SHA-256 of the secret, whose it is. `weft api token` changes it.\n"
            .to_owned();
    for known in all.values() {
        let Known {
            id,
            role,
            hash,
            name,
        } = known;
        text.push_str(format!("{id} {role} {hash} {name}").trim_end());
        text.push('\n');
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    share(&fresh, std::fs::metadata(path).ok().as_ref())?;
    std::fs::rename(&fresh, path)
}

impl Tokens {
    /// Puts a token into a file, which is made where it is not there.
    ///
    /// # Errors
    /// Of the file.
    pub fn add(path: &Path, known: Known) -> std::io::Result<()> {
        let _alone = lock(path)?;
        let mut all = match read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            all => all?,
        };
        all.insert(known.id.clone(), known);
        write(path, &all)
    }

    /// Takes one out of it; false where it has none of this id.
    ///
    /// # Errors
    /// Of the file.
    pub fn remove(path: &Path, id: &str) -> std::io::Result<bool> {
        let _alone = lock(path)?;
        let mut all = read(path)?;
        let there = all.remove(id).is_some();
        if there {
            write(path, &all)?;
        }
        Ok(there)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;
    use crate::token::sha256;

    /// As several operators do at once, or a script.
    #[test]
    fn what_is_taken_back_stays_so_whoever_changes_the_file_meanwhile() {
        let folder = std::env::temp_dir().join(format!("weft-tokens-{}", crate::token::random(6)));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("tokens");
        let create = || {
            let token = TokenText::create(sha256(b"certificate"));
            Tokens::add(&path, Known::new(&token, Role::Read, "")).unwrap();
            token.id
        };
        let victims: Vec<String> = (0..30).map(|_| create()).collect();
        let made = std::thread::scope(|scope| {
            let makers = [(); 3]
                .map(|()| scope.spawn(|| (0..30).map(|_| create()).collect::<Vec<String>>()));
            for id in &victims {
                assert!(Tokens::remove(&path, id).unwrap(), "{id} was there");
            }
            makers.map(|maker| maker.join().unwrap()).concat()
        });
        let left = Tokens::open(&path).unwrap().all();
        let mut left: Vec<String> = left.into_iter().map(|one| one.id).collect();
        let mut made = made;
        left.sort();
        made.sort();
        assert_eq!(left, made);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_changes_in_the_file_holds_at_once_and_none_means_nobody() {
        let folder = std::env::temp_dir().join(format!("weft-tokens-{}", crate::token::random(6)));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("tokens");
        assert!(Tokens::open(&path).is_err());
        let token = || TokenText::create(sha256(b"certificate"));
        let (first, second) = (token(), token());
        Tokens::add(&path, Known::new(&first, Role::Read, "pro \n metheus")).unwrap();
        let mut held = Tokens::new(path.clone());
        let mut check = |shown: &TokenText| {
            held.look();
            held.check(shown)
        };
        let found = check(&first).unwrap();
        assert_eq!(
            found.to_string(),
            format!("token {} (read, pro metheus)", first.id)
        );
        assert_eq!(check(&second), None);
        Tokens::add(&path, Known::new(&second, Role::Operate, "")).unwrap();
        assert_eq!(check(&second).unwrap().role, Role::Operate);
        let guessed = TokenText {
            secret: first.secret.clone(),
            ..second.clone()
        };
        assert_eq!(check(&guessed), None);
        assert!(Tokens::remove(&path, &first.id).unwrap());
        assert!(!Tokens::remove(&path, &first.id).unwrap());
        assert_eq!(check(&first), None);
        // A line that is none costs itself alone.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("a read b\nc write d\n{text}")).unwrap();
        assert_eq!(Tokens::open(&path).unwrap().all().len(), 1);
        assert!(check(&second).is_some());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check(&second), None);
        std::fs::remove_dir(&folder).unwrap();
    }
}
