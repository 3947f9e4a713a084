//! Removes everything of ours from the kernel, with or without a process that runs.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::actor::ALIAS;
use crate::actor::links::is_tenant_vrf;
use crate::bpf::Classifier;
use crate::model::{NextHop, RuleMatch};
use crate::netlink::links::put_link;
use crate::netlink::objects::{
    RTM_DELNEXTHOP, RTM_DELROUTE, put_next_hop_id, put_route_key, put_rule,
};
use crate::netlink::socket::{Batch, Netlink};
use crate::ways::WaySets;
use crate::{Error, host, nftables, snapshot, steps};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TeardownReport {
    /// Policy rules.
    pub rules: usize,
    /// Routes in all tables.
    pub routes: usize,
    /// Next-hop objects.
    pub next_hops: usize,
    /// Tunnel devices and VRFs.
    pub devices: usize,
}

/// Removes what carries this protocol number, the devices and the nftables table. What enters by what were attachments is not forwarded over
/// IPv4 any more; other sysctls stay as they are.
///
/// # Errors
/// Without the privilege, or where the kernel refuses a removal.
pub fn teardown(protocol: u8) -> Result<TeardownReport, Error> {
    let read = Error::kernel("cannot read the kernel's tables");
    let mut netlink = Netlink::open().map_err(Error::kernel("cannot open netlink"))?;
    let rules = snapshot::rules(&mut netlink, protocol).map_err(&read)?;
    let routes =
        snapshot::routes(&mut netlink, &mut WaySets::default(), protocol).map_err(&read)?;
    let mut next_hops = snapshot::next_hops(&mut netlink, protocol).map_err(&read)?;
    // Groups before what they are made of.
    next_hops.sort_by_key(|(id, next_hop)| (!matches!(next_hop, NextHop::Group { .. }), *id));
    let links = snapshot::links(&mut netlink).map_err(&read)?;
    let devices: Vec<_> = links
        .iter()
        .filter(|link| link.alias.as_deref() == Some(ALIAS) || is_tenant_vrf(link))
        .collect();
    let by_rules = rules.iter().filter_map(|rule| match &rule.matches {
        RuleMatch::Interface(name) => Some(name.clone()),
        _ => None,
    });
    let mut attachments: BTreeSet<String> =
        by_rules.chain(nftables::interfaces("closed")).collect();
    for link in &links {
        if Classifier::found(&mut netlink, link.index).is_some() {
            attachments.insert(link.name.clone());
        }
    }
    for name in &attachments {
        host::close(name);
    }
    let mut batch = Batch::default();
    for rule in &rules {
        batch.push(libc::RTM_DELRULE, 0, |out| put_rule(out, rule, protocol));
    }
    for (key, _) in &routes {
        batch.push(RTM_DELROUTE, 0, |out| put_route_key(out, key, protocol));
    }
    for (id, _) in &next_hops {
        batch.push(RTM_DELNEXTHOP, 0, |out| put_next_hop_id(out, *id));
    }
    for device in &devices {
        batch.push(libc::RTM_DELLINK, 0, |out| put_link(out, device.index));
    }
    let report = TeardownReport {
        rules: rules.len(),
        routes: routes.len(),
        next_hops: next_hops.len(),
        devices: devices.len(),
    };
    if batch.len() > 0 {
        let refused = netlink
            .send(batch)
            .map_err(Error::kernel("cannot remove"))?;
        let refused = refused
            .into_iter()
            .find(|(_, refusal)| refusal.errno != libc::ESRCH && refusal.errno != libc::ENOENT);
        if let Some((_, refusal)) = refused {
            return Err(Error::kernel("the kernel refused a removal")(
                std::io::Error::from_raw_os_error(refusal.errno),
            ));
        }
    }
    // Tunnel devices took theirs along; attachments are not ours and stay.
    for link in links
        .iter()
        .filter(|link| !devices.iter().any(|device| device.index == link.index))
    {
        if Classifier::is_attached(&mut netlink, link.index) {
            Classifier::detach(&mut netlink, link.index)
                .map_err(Error::kernel("cannot take the classifier away"))?;
        }
    }
    if let Err(error) = nftables::unload().and_then(|()| steps::unload()) {
        tracing::debug!(%error, "no nftables table to remove");
    }
    Ok(report)
}
