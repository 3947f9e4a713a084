//! What a shell completes beside commands and options: names that a running router, a controller or a lab knows. Who cannot be asked at
//! once has none.

use std::ffi::OsString;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use serde_json::Value;
use weft_api::Client;
use weft_api::SOCKET as API;
use weft_api::types::{Neighbor, Tenant};

use super::controller::Access;
use super::reach::Reach;
use crate::lab;

/// Longer than a router on this host takes; a person waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

fn candidates(names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The router that the command line, as far as it is written, asks: its API.
fn router(words: impl IntoIterator<Item = OsString>, variable: Option<String>) -> String {
    let mut words = words.into_iter().filter_map(|word| word.into_string().ok());
    let mut api = variable.filter(|text| !text.is_empty());
    while let Some(word) = words.next() {
        match word.strip_prefix("--api=") {
            Some(url) => api = Some(url.to_owned()),
            None if word == "--api" => api = words.next().or(api),
            None => {}
        }
    }
    api.unwrap_or_else(|| API.to_owned())
}

fn client() -> Option<Client> {
    let api = router(std::env::args_os(), std::env::var("WEFT_API").ok());
    Reach::to(api).client(Some(PATIENCE)).ok()
}

/// The tenants of a router.
pub(super) fn tenants() -> Vec<CompletionCandidate> {
    let tenants = client().and_then(|client| client.get::<Vec<Tenant>>(&["tenants"], &[]).ok());
    candidates(tenants.into_iter().flatten().map(|tenant| tenant.name))
}

/// The neighbours of a router, by address.
pub(super) fn neighbors() -> Vec<CompletionCandidate> {
    let neighbors =
        client().and_then(|client| client.get::<Vec<Neighbor>>(&["neighbors"], &[]).ok());
    candidates(
        neighbors
            .into_iter()
            .flatten()
            .map(|one| one.address.to_string()),
    )
}

/// The names in a list of the controller whose folder is here.
fn listed(path: &str) -> Vec<CompletionCandidate> {
    let list = Access::default().ask_within(PATIENCE, path);
    let list = list.unwrap_or(Value::Null);
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    candidates(items.iter().filter_map(|item| {
        let name = item["name"].as_str();
        Some(name?.to_owned())
    }))
}

/// The tenants of a domain.
pub(super) fn domain_tenants() -> Vec<CompletionCandidate> {
    listed("tenants")
}

/// The routers of a domain.
pub(super) fn domain_routers() -> Vec<CompletionCandidate> {
    listed("routers")
}

/// The domains that a domain trusts.
pub(super) fn domains() -> Vec<CompletionCandidate> {
    listed("domains")
}

/// Labs that are up.
pub(crate) fn labs() -> Vec<CompletionCandidate> {
    candidates(lab::nodes().into_iter().map(|(lab, _)| lab))
}

/// The nodes of labs that are up.
pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    candidates(lab::nodes().into_iter().map(|(_, node)| node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_that_is_asked_is_the_command_lines() {
        let asked = |words: &str, variable: Option<&str>| {
            let words = words.split(' ').map(OsString::from);
            router(words, variable.map(str::to_owned))
        };
        assert_eq!(asked("weft show tenants", None), API);
        assert_eq!(asked("weft show tenants", Some("")), API);
        assert_eq!(asked("weft show tenants", Some("http://a")), "http://a");
        let said = [
            "weft show --api http://b tenants",
            "weft show --api=http://b",
        ];
        for words in said {
            assert_eq!(asked(words, Some("http://a")), "http://b");
        }
        assert_eq!(asked("weft show --api", None), API);
    }
}
