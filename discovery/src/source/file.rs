//! Peers in a YAML file, which may change at any time.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::{Peers, Source, SourceError};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file: a mapping from names to `address`, and `asn`, `port`, `route_reflector_client` where they are not the usual.
pub struct PeerFile {
    path: PathBuf,
    /// When what was read last had been written, and how long it was.
    seen: Option<(SystemTime, u64)>,
}

impl PeerFile {
    /// The file at this path; it need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    async fn read(&mut self) -> Result<Peers, SourceError> {
        let error = |error: &dyn std::fmt::Display| SourceError(format!("{error}"));
        loop {
            let about = tokio::fs::metadata(&self.path)
                .await
                .map_err(|of| error(&of))?;
            let stamp = (about.modified().map_err(|of| error(&of))?, about.len());
            if self.seen == Some(stamp) {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let text = tokio::fs::read_to_string(&self.path)
                .await
                .map_err(|of| error(&of))?;
            let peers = serde_yaml::from_str(&text).map_err(|of| error(&of))?;
            self.seen = Some(stamp);
            return Ok(peers);
        }
    }
}

impl Source for PeerFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Peers, SourceError>> + Send + '_>> {
        Box::pin(self.read())
    }
}
