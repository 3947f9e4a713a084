//! Peers in a YAML file, which may change at any time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_yaml::Value;

use super::{Said, Source, SourceError};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// It is read when it has not changed for so long: somebody may be writing it.
const STILL: Duration = Duration::from_millis(200);

/// A file: a mapping from names to `address`, and `asn`, `port`, `route_reflector_client` where they are not the usual.
pub struct PeerFile {
    path: PathBuf,
    /// When what was read last had been written, and how long it was.
    seen: Option<(SystemTime, u64)>,
}

/// Values by name, each name once.
struct Once(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a mapping from names to `{ address: ADDRESS }`; `{}` for a list of none",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if values.contains_key(&name) {
                        return Err(A::Error::custom(format!(
                            "`{name}` stands here twice: give each peer a name of its own"
                        )));
                    }
                    values.insert(name, value);
                }
                Ok(Once(values))
            }
        }

        from.deserialize_any(Names)
    }
}

/// Reads the text of a file.
fn read(text: &str) -> Result<Said, String> {
    if text.trim().is_empty() {
        return Err("it is empty: `{}` is a list of none".into());
    }
    let Once(values) = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let records = values.into_iter().map(|(name, value)| {
        let peer = serde_yaml::from_value(value);
        (name, peer.map_err(|error| error.to_string()))
    });
    Ok(records.collect())
}

impl PeerFile {
    /// The file at this path; it need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    /// When it was written, and how long it is.
    async fn stamp(&self) -> std::io::Result<(SystemTime, u64)> {
        let about = tokio::fs::metadata(&self.path).await?;
        Ok((about.modified()?, about.len()))
    }

    async fn read(&mut self) -> Result<Said, SourceError> {
        let error = |error: std::io::Error| SourceError(error.to_string());
        loop {
            let stamp = self.stamp().await.map_err(error)?;
            if self.seen == Some(stamp) {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if self.seen.is_some() {
                tokio::time::sleep(STILL).await;
            }
            let text = tokio::fs::read_to_string(&self.path).await.map_err(error)?;
            if self.stamp().await.map_err(error)? != stamp {
                continue;
            }
            let said = read(&text).map_err(SourceError)?;
            self.seen = Some(stamp);
            return Ok(said);
        }
    }
}

impl Source for PeerFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Said, SourceError>> + Send + '_>> {
        Box::pin(self.read())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    #[test]
    fn an_empty_file_is_a_mistake_and_a_list_of_none_is_a_list() {
        for empty in ["", "\n", " \n\t"] {
            assert!(read(empty).unwrap_err().contains("`{}`"), "{empty:?}");
        }
        assert!(read("{}").unwrap().is_empty());
        assert!(read("# nobody yet\n").is_err());
        assert!(read("[r1]").unwrap_err().contains("a mapping"));
    }

    #[test]
    fn a_name_twice_is_named_and_one_bad_entry_costs_that_one() {
        let twice =
            "r1: { address: 192.0.2.1 }\nr2: { address: 192.0.2.2 }\nr1: { address: 192.0.2.3 }\n";
        assert!(read(twice).unwrap_err().contains("`r1` stands here twice"));
        let said = read("r1: { adress: 192.0.2.1 }\nr2: { address: 192.0.2.2 }\n").unwrap();
        assert!(
            said["r1"].as_ref().unwrap_err().contains("adress"),
            "{said:?}"
        );
        assert!(said["r2"].is_ok());
    }
}
