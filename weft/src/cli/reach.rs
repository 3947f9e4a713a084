//! How a router's API is reached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use weft_api::{Client, SOCKET, Secrets};

/// Which router is asked.
#[derive(Args, Default)]
pub(super) struct Reach {
    /// Where the router's API is: the path of its Unix socket, or a URL.
    #[arg(
        long,
        global = true,
        env = "WEFT_API",
        default_value = SOCKET,
        value_name = "PLACE"
    )]
    pub(super) api: String,
    /// A file with the token for an API at https; the environment variable `WEFT_API_TOKEN` may have the token itself.
    #[arg(long, global = true, env = "WEFT_API_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities that may have signed the certificate of an API at https, PEM. Where absent, the token says whose it is.
    #[arg(long, global = true, env = "WEFT_API_CACERT", value_name = "FILE")]
    cacert: Option<PathBuf>,
}

impl Reach {
    /// As on a command line that says where the API is, and nothing else.
    pub(super) fn to(api: String) -> Self {
        let file = |name| std::env::var_os(name).map(PathBuf::from);
        Self {
            api,
            token_file: file("WEFT_API_TOKEN_FILE"),
            cacert: file("WEFT_API_CACERT"),
        }
    }

    /// A client, whose answers take so long at most where that is said.
    pub(super) fn client(&self, patience: Option<Duration>) -> anyhow::Result<Client> {
        let secrets = match self.api.starts_with("https://") {
            true => self.secrets()?,
            false => Secrets::default(),
        };
        Ok(match patience {
            Some(patience) => Client::with_timeout(&self.api, &secrets, patience),
            None => Client::new(&self.api, &secrets),
        }?)
    }

    fn secrets(&self) -> anyhow::Result<Secrets> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let token = match &self.token_file {
            Some(path) => Some(read(path)?),
            None => std::env::var("WEFT_API_TOKEN").ok(),
        };
        let token = token.filter(|text| !text.trim().is_empty());
        Ok(Secrets {
            token: token.map(|text| text.parse()).transpose()?,
            authorities: self.cacert.as_ref().map(read).transpose()?,
        })
    }
}
