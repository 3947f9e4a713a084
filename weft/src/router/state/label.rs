//! Label communities, decoded.

use weft_api::Unavailable;
use weft_api::types as api;
use weft_bgp_wire::LargeCommunity;
use weft_overlay::label::{Endpoint, LabelCommunity, LabelKind};
use weft_overlay::origins::OriginState;

use super::{LiveState, encapsulation, ended, vnis_of};

/// Those in use, by value.
pub(super) async fn in_use(state: &LiveState) -> Result<Vec<api::LabelUse>, Unavailable> {
    let Some(administrator) = state.administrator() else {
        return Ok(Vec::new());
    };
    let (labels, tenants) = state
        .overlay
        .ask(|overlay| (overlay.labels(), overlay.tenants()))
        .await
        .ok_or_else(ended)?;
    let uses = labels.into_iter().filter_map(|status| {
        let vni = status.label.vni;
        let tenant = tenants
            .iter()
            .find(|tenant| vnis_of(&tenant.config).any(|one| one == vni))
            .map(|tenant| tenant.config.name.clone());
        let community = LabelCommunity::Label(status.label).encode(administrator);
        Some(api::LabelUse {
            label: label(community, administrator)?,
            tenant,
            prefixes: status.prefixes as u64,
        })
    });
    Ok(uses.collect())
}

/// Whether a label may lead where it does, for the API.
pub(super) fn origin(state: OriginState) -> api::OriginState {
    match state {
        OriginState::Valid => api::OriginState::Valid,
        OriginState::Invalid => api::OriginState::Invalid,
        OriginState::Unknown => api::OriginState::Unknown,
    }
}

/// A label community for the API; `None` for what is not ours or is ignored.
pub(super) fn label(community: LargeCommunity, administrator: u32) -> Option<api::Label> {
    let decoded = LabelCommunity::decode(community, administrator)?.ok()?;
    let mut port = None;
    let (kind, vni, encapsulated, endpoint) = match decoded {
        LabelCommunity::Label(label) => {
            let kind = match label.kind {
                LabelKind::Tenant => api::LabelKind::Tenant,
                LabelKind::Service => api::LabelKind::Service,
            };
            (kind, Some(label.vni), label.encapsulation, label.endpoint)
        }
        LabelCommunity::LocalNextHop(hop) => (
            api::LabelKind::LocalNextHop,
            hop.vni,
            hop.encapsulation,
            hop.endpoint,
        ),
        LabelCommunity::Locator(locator) => (
            api::LabelKind::Locator,
            None,
            locator.encapsulation,
            Endpoint::Id(locator.id),
        ),
        LabelCommunity::LocatorPort(said) => {
            port = Some(said.port.get());
            let id = Endpoint::Id(said.id);
            (api::LabelKind::LocatorPort, None, said.encapsulation, id)
        }
    };
    let (address, id) = match endpoint {
        Endpoint::V4(address) => (Some(address), None),
        Endpoint::Id(id) => (None, Some(id.0)),
    };
    Some(api::Label {
        community: community.to_string(),
        kind,
        vni: vni.map(|vni| vni.get()),
        encapsulation: encapsulation(encapsulated),
        port,
        endpoint: address,
        endpoint_id: id,
        origin: None,
    })
}
