//! `weft router`: assembles BGP, overlay, data plane and API into one process.

use crate::config::Config;

/// Runs the router until it is told to stop.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("router {}: this build has no router", config.router.name)
}

/// Removes everything of ours from the kernel.
pub(crate) fn down() -> anyhow::Result<()> {
    anyhow::bail!("this build has no router")
}
