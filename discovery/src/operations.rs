//! What may be changed in a domain, and how: each is computed from the state, and refused as a whole where it makes no sense.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weft_overlay::words;

use crate::attachments::{check_asn, check_unicast, unfit};
use crate::chains::operations as chains;
use crate::database::{Rejection, Transaction};
use crate::exchange::operations::{check_vni, offer, offered, shared_with};
use crate::model::{
    Attachment, Claim, Domain, Peer, Record, Registration, Revision, Role, Router, Scope, State,
    Tenant, Token, VniUse, key, now,
};
use crate::state::{as_edge, as_router, by};
use crate::{grants, session_keys};

pub use crate::attachments::NewAttachment;
use crate::pki::random;

pub(crate) type Done<T> = Result<T, Rejection>;

/// A name as [`words::name`] has it.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Done<()> {
    words::name(name).map_err(|allowed| {
        let found = name.escape_debug();
        Rejection::Invalid(format!("found `{found}`, expected {allowed}"))
    })
}

pub(crate) fn missing(what: &str, name: &str) -> Rejection {
    Rejection::NotFound(format!("there is no {what} `{name}`"))
}

pub(crate) fn domain_of(transaction: &Transaction<'_>) -> Done<Domain> {
    match transaction.get(key::DOMAIN) {
        Some(Record::Domain(domain)) => Ok(domain.clone()),
        _ => Err(Rejection::Unavailable(
            "this controller has no domain".into(),
        )),
    }
}

pub(crate) fn router_of(transaction: &Transaction<'_>, name: &str) -> Done<Router> {
    match transaction.get(&key::router(name)) {
        Some(Record::Router(router)) => Ok(router.clone()),
        _ => Err(missing("router", name)),
    }
}

pub(crate) fn tenant_of(transaction: &Transaction<'_>, name: &str) -> Done<Tenant> {
    match transaction.get(&key::tenant(name)) {
        Some(Record::Tenant(tenant)) => Ok(tenant.clone()),
        _ => Err(missing("tenant", name)),
    }
}

/// Makes the domain.
///
/// # Errors
/// Where there is one, or its numbers make no sense.
pub fn create_domain(transaction: &mut Transaction<'_>, domain: &Domain) -> Done<()> {
    check_name(&domain.name)?;
    if transaction.get(key::DOMAIN).is_some() {
        return Err(Rejection::Conflict("this controller has a domain".into()));
    }
    check_asn("asn", domain.asn)?;
    check_asn("global_administrator", domain.global_administrator)?;
    if matches!(domain.hold_time, 1 | 2) {
        let allowed = "0 (no keepalives), or 3 to 65535 seconds (RFC 4271 section 4.2)";
        return Err(unfit("hold_time", domain.hold_time, allowed));
    }
    if domain.first_vni == 0 || domain.first_vni > domain.last_vni || domain.last_vni > 16_777_214 {
        return Err(Rejection::Invalid(format!(
            "{}-{} is no range of VNIs: they are 1 to 16777214",
            domain.first_vni, domain.last_vni
        )));
    }
    if domain.certificate == 0 || domain.lease == 0 {
        return Err(Rejection::Invalid(
            "a certificate and a lease last for a second at least".into(),
        ));
    }
    transaction.put(Record::Domain(domain.clone()));
    Ok(())
}

/// The operator has seen that the datastore is older than what routers were told, up to this revision: they take what is here from now
/// on.
///
/// # Errors
/// Where there is no domain.
pub fn resume(transaction: &mut Transaction<'_>, told: u64) -> Done<Domain> {
    let mut domain = domain_of(transaction)?;
    domain.resumed = domain.resumed.max(told);
    transaction.put(Record::Domain(domain.clone()));
    Ok(domain)
}

/// What a token is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is good for.
    pub scope: Scope,
    /// For how long, s; for ever where absent.
    #[serde(default)]
    pub ttl: Option<u64>,
    /// How often; any number where absent.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// Makes a token.
///
/// # Errors
/// Where its scope names nothing that is there.
pub fn create_token(
    transaction: &mut Transaction<'_>,
    id: &str,
    hash: &str,
    new: &NewToken,
    actor: &str,
) -> Done<Token> {
    match &new.scope {
        Scope::Tenant { tenant } => drop(tenant_of(transaction, tenant)?),
        Scope::Join {
            name: Some(name), ..
        } => check_name(name)?,
        _ => {}
    }
    let token = Token {
        id: id.to_owned(),
        hash: hash.to_owned(),
        scope: new.scope.clone(),
        expires_at: new.ttl.map(|ttl| now() + ttl.saturating_mul(1000)),
        uses_left: new.uses,
        created_by: actor.to_owned(),
    };
    transaction.put(Record::Token(token.clone()));
    Ok(token)
}

/// Takes a token back.
///
/// # Errors
/// Where there is none.
pub fn delete_token(transaction: &mut Transaction<'_>, id: &str) -> Done<()> {
    if transaction.get(&key::token(id)).is_none() {
        return Err(missing("token", id));
    }
    transaction.delete(&key::token(id));
    Ok(())
}

/// Whether a token with this secret is good now.
///
/// # Errors
/// [`Rejection::Forbidden`], the same for an unknown token and a wrong secret.
pub fn check_token(token: Option<&Token>, hash: &str) -> Done<Token> {
    let good = token.filter(|token| weft_api::token::same(&token.hash, hash));
    let Some(token) = good else {
        return Err(Rejection::Forbidden(
            "this token is not known here: it may have been used up or taken back".into(),
        ));
    };
    if token.expires_at.is_some_and(|until| until <= now()) {
        return Err(Rejection::Forbidden("this token has expired".into()));
    }
    if token.uses_left == Some(0) {
        return Err(Rejection::Forbidden("this token has been used up".into()));
    }
    Ok(token.clone())
}

/// A router joins with a token, with this key. One that asks again, since it has not heard the answer, has joined: its key is the
/// proof, and the token is not used again. Only a token that names it gives a router of the domain another key.
///
/// # Errors
/// Where the token is not good for that.
pub fn join(
    transaction: &mut Transaction<'_>,
    token: &str,
    hash: &str,
    name: &str,
    router_key: &str,
) -> Done<()> {
    check_name(name)?;
    let before = router_of(transaction, name).ok();
    let known = before.as_ref().filter(|one| one.key == router_key);
    let record = match transaction.get(&key::token(token)) {
        Some(Record::Token(token)) => Some(token),
        _ => None,
    };
    let Some((mut token, role)) = may_join(record, hash, name, before.as_ref(), router_key)? else {
        return Ok(());
    };
    if known.is_some_and(|one| one.role == role) {
        return Ok(());
    }
    if known.is_none() {
        session_keys::renew(transaction, name);
    }
    // It keeps what the operator added, and is what it was until it registers anew: with another key its starts are counted anew.
    let registration = before.as_ref().and_then(|one| one.registration.clone());
    let registration = registration.map(|one| Registration {
        generation: match known {
            Some(_) => one.generation,
            None => 0,
        },
        ..one
    });
    let router = Router {
        name: name.to_owned(),
        role,
        key: router_key.to_owned(),
        registration,
        controller: before.as_ref().and_then(|one| one.controller.clone()),
        expired: before.as_ref().is_some_and(|one| one.expired),
        external_address: before.as_ref().and_then(|one| one.external_address),
        // What another machine lives by says nothing of this one.
        reserved: known
            .and(before.as_ref())
            .map(|one| one.reserved.clone())
            .unwrap_or_default(),
        peers: before.map(|one| one.peers).unwrap_or_default(),
        claim: None,
    };
    transaction.put(Record::Router(router));
    if let Some(uses) = &mut token.uses_left {
        *uses -= 1;
        match *uses {
            0 => transaction.delete(&key::token(&token.id)),
            _ => transaction.put(Record::Token(token)),
        }
    }
    Ok(())
}

/// Whether a router may join with a token, and as what; `None` where it has joined with this key already, and the token is not good
/// any more. `before` is the router that the domain has of this name.
///
/// # Errors
/// Where the token is not good for that.
pub fn may_join(
    token: Option<&Token>,
    hash: &str,
    name: &str,
    before: Option<&Router>,
    router_key: &str,
) -> Done<Option<(Token, Role)>> {
    let known = before.is_some_and(|before| before.key == router_key);
    let token = match check_token(token, hash) {
        Err(_) if known => return Ok(None),
        token => token?,
    };
    let Scope::Join { role, name: only } = &token.scope else {
        return Err(Rejection::Forbidden("this is no join token".into()));
    };
    match only {
        Some(only) if only != name => Err(Rejection::Forbidden(format!(
            "this token is for another router than `{name}`"
        ))),
        // Whoever finds a token is not to become a router that there is.
        None if before.is_some() && !known => Err(Rejection::Forbidden(format!(
            "`{name}` is a router of this domain already, with another key, and this token names no router: it lets new ones in. If this is \
             `{name}`, installed anew, `weft token create --role {role} --name {name}` makes the token for it; else give this one another name"
        ))),
        _ => {
            let role = *role;
            Ok(Some((token, role)))
        }
    }
}

/// A router that has joined says what it is. `alone` says that nobody is attached in its name to this controller.
///
/// # Errors
/// Where it is not the one that joined, a later one has its name, or another has its addresses.
pub fn register(
    transaction: &mut Transaction<'_>,
    name: &str,
    router_key: &str,
    registration: &Registration,
    controller: &str,
    alone: bool,
) -> Done<()> {
    let mut router = router_of(transaction, name).map_err(|_| removed(name))?;
    if router.key != router_key {
        return Err(replaced(name));
    }
    // An older copy of its folder counts its starts from there. Where the later one is away, there is one router of the name.
    let here = router.controller.as_deref() == Some(controller);
    let away = router.expired || (here && alone);
    if let Some(known) = &router.registration
        && known.generation > registration.generation
        && !away
    {
        return Err(Rejection::Precondition(format!(
            "a later start of `{name}` has registered (start {} of its folder, this is {}): if that one is not to be, stop it, and this one \
             is let in when its lease is over",
            known.generation, registration.generation
        )));
    }
    check_unicast("bgp_address", registration.bgp_address)?;
    check_unicast("endpoint", registration.endpoint)?;
    if registration.router_id.is_unspecified() {
        let allowed = "an id in the form of an IPv4 address, not 0.0.0.0";
        return Err(unfit("router_id", registration.router_id, allowed));
    }
    check_alone(transaction.state(), name, registration)?;
    let before = router.registration.as_ref();
    let fresh = before.is_none_or(|before| before.generation == 0);
    router.registration = Some(registration.clone());
    router.controller = Some(controller.to_owned());
    router.expired = false;
    router.claim = None;
    session_keys::registered(transaction, &router, fresh);
    transaction.put(Record::Router(router));
    Ok(())
}

/// Interfaces that a router says of itself to be reserved, at most; and characters that each reason has.
const MOST_RESERVED: usize = 256;
const LONGEST_REASON: usize = 256;

/// A router says which interfaces it lives by itself.
///
/// # Errors
/// Where it is none of the domain.
pub fn reserve(
    transaction: &mut Transaction<'_>,
    name: &str,
    router_key: &str,
    interfaces: &BTreeMap<String, String>,
) -> Done<()> {
    check_router(transaction.state(), name, router_key)?;
    let mut router = router_of(transaction, name)?;
    let named = interfaces.iter().filter(|(name, _)| name.len() < 16);
    let mut reserved: BTreeMap<String, String> = BTreeMap::new();
    for (name, reason) in named {
        let shown = reason.chars().filter(|one| !one.is_control());
        reserved.insert(name.clone(), shown.take(LONGEST_REASON).collect());
        if reserved.len() > MOST_RESERVED {
            reserved.pop_last();
        }
    }
    if router.reserved != reserved {
        router.reserved = reserved;
        transaction.put(Record::Router(router));
    }
    Ok(())
}

/// No other router has the addresses of this one, and no trusted domain's edge the one that its own would be spoken with by: one that a
/// router has already stays with it, whoever says since to have it.
fn check_alone(state: &State, name: &str, registration: &Registration) -> Done<()> {
    for (what, value, entry) in [
        (
            "router id",
            registration.router_id.to_string(),
            by::router_id(registration.router_id),
        ),
        (
            "BGP address",
            registration.bgp_address.to_string(),
            by::bgp_address(registration.bgp_address),
        ),
        (
            "endpoint",
            registration.endpoint.to_string(),
            by::endpoint(registration.endpoint),
        ),
    ] {
        let mut others = state.by(&entry).filter_map(as_router);
        if let Some(other) = others.find(|other| other.name != name) {
            return Err(Rejection::Conflict(format!(
                "router `{}` has the {what} {value}, which is unique in a domain: give `{name}` another one, or remove `{}` where it is no \
                 more (DELETE /api/v1/routers/{})",
                other.name, other.name, other.name
            )));
        }
    }
    let address = registration.bgp_address;
    let before = state.router(&key::router(name));
    let before = before.and_then(|one| one.registration.as_ref());
    let edge = state.by(&by::bgp_address(address)).find_map(as_edge);
    match edge {
        Some(edge) if before.is_none_or(|own| own.bgp_address != address) => {
            Err(Rejection::Conflict(format!(
                "edge `{}` of domain `{}` has the BGP address {address}: give `{name}` another one, or, where that domain is wrong, have it \
                 mend it or trust it no more (weft domain remove {})",
                edge.name, edge.domain, edge.domain
            )))
        }
        _ => Ok(()),
    }
}

/// A start of a router that another controller has attached asks, by another one, to be it.
///
/// # Errors
/// Where the router is not one of the domain.
pub fn claim(
    transaction: &mut Transaction<'_>,
    name: &str,
    router_key: &str,
    instance: &str,
) -> Done<()> {
    check_router(transaction.state(), name, router_key)?;
    let mut router = router_of(transaction, name)?;
    router.claim = Some(Claim {
        instance: instance.to_owned(),
        answers: None,
    });
    transaction.put(Record::Router(router));
    Ok(())
}

/// The controller that has the router says whether it answers.
///
/// # Errors
/// Where the router is not one of the domain.
pub fn answer_claim(
    transaction: &mut Transaction<'_>,
    name: &str,
    instance: &str,
    answers: bool,
) -> Done<()> {
    let mut router = router_of(transaction, name)?;
    if let Some(claim) = &mut router.claim
        && claim.instance == instance
    {
        claim.answers = Some(answers);
        transaction.put(Record::Router(router));
    }
    Ok(())
}

/// What a router is told that is no longer known.
fn removed(name: &str) -> Rejection {
    Rejection::NotFound(format!(
        "router `{name}` is not in the domain: it has been removed, or the domain was restored from a copy that is older than it"
    ))
}

/// What a router is told whose name another one has.
fn replaced(name: &str) -> Rejection {
    Rejection::Forbidden(format!(
        "another router has joined as `{name}` since, with a key of its own: if this one is to be `{name}`, remove its state folder and \
         join with a fresh token (weft token create --role router --name {name}); else give it another name"
    ))
}

/// Whether a router with this key is in the domain.
///
/// # Errors
/// [`Rejection::NotFound`], and [`Rejection::Forbidden`] where another one has its name.
pub fn check_router(state: &State, name: &str, router_key: &str) -> Done<()> {
    match state.router(&key::router(name)) {
        Some(router) if router.key == router_key => Ok(()),
        Some(_) => Err(replaced(name)),
        None => Err(removed(name)),
    }
}

/// The lease of a router that was attached to a controller has run out.
///
/// # Errors
/// Where there is no such router.
pub fn expire(
    transaction: &mut Transaction<'_>,
    name: &str,
    generation: u64,
    controller: Option<&str>,
) -> Done<()> {
    let mut router = router_of(transaction, name)?;
    let latest = router.registration.as_ref().map(|one| one.generation);
    // Otherwise it has come back since, here or elsewhere.
    if latest == Some(generation) && router.controller.as_deref() == controller {
        router.expired = true;
        transaction.put(Record::Router(router));
    }
    Ok(())
}

/// What an operator says of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterChange {
    /// What it is in the mesh; as it was where absent.
    #[serde(default)]
    pub role: Option<Role>,
    /// Other domains' routers that it speaks with; as they were where absent.
    #[serde(default)]
    pub peers: Option<Vec<Peer>>,
    /// Where other domains' routers connect to; as it was where absent. By default its BGP address.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub external_address: Option<std::net::IpAddr>,
}

/// Changes a router.
///
/// # Errors
/// Where there is none, or a peer makes no sense.
pub fn change_router(
    transaction: &mut Transaction<'_>,
    name: &str,
    change: &RouterChange,
) -> Done<Router> {
    let mut router = router_of(transaction, name)?;
    let domain = domain_of(transaction)?;
    if let Some(role) = change.role {
        router.role = role;
    }
    if let Some(address) = change.external_address {
        check_unicast("external_address", address)?;
        router.external_address = Some(address);
    }
    if let Some(peers) = &change.peers {
        let mut addresses = BTreeMap::new();
        for (at, peer) in peers.iter().enumerate() {
            check_name(&peer.name)?;
            check_unicast(format!("peers[{at}].address"), peer.address)?;
            check_asn(format!("peers[{at}].asn"), peer.asn)?;
            if peer.ttl == 0 {
                return Err(unfit(format!("peers[{at}].ttl"), 0, "a TTL, 1 to 255"));
            }
            if peer.asn == domain.asn {
                return Err(Rejection::Invalid(format!(
                    "peer `{}`: AS {} is no other domain's",
                    peer.name, peer.asn
                )));
            }
            for tenant in &peer.tenants {
                tenant_of(transaction, tenant)?;
            }
            if let Some(other) = addresses.insert(peer.address, &peer.name) {
                return Err(Rejection::Invalid(format!(
                    "peers `{other}` and `{}` have one address",
                    peer.name
                )));
            }
        }
        router.peers.clone_from(peers);
    }
    if router.role != Role::Edge && !router.peers.is_empty() {
        return Err(Rejection::Invalid(format!(
            "`{name}` is a {}: only an edge speaks with other domains",
            router.role
        )));
    }
    transaction.put(Record::Router(router.clone()));
    Ok(router)
}

/// Removes a router with its attachments: its certificate is no longer good, and everybody ends the session with it.
///
/// # Errors
/// Where there is none.
pub fn delete_router(transaction: &mut Transaction<'_>, name: &str) -> Done<()> {
    router_of(transaction, name)?;
    for one in transaction.state().by(&by::router(name)) {
        if let Record::Attachment(_) | Record::Grant(_) = &one.record {
            transaction.delete(&one.record.key());
        }
    }
    chains::forget_router(transaction, name);
    session_keys::forget(transaction, name);
    // Who has one that was made for this router is not the next of its name.
    for (key, one) in transaction.state().below(&key::token("")) {
        let scope = match &one.record {
            Record::Token(token) => &token.scope,
            _ => continue,
        };
        if matches!(scope, Scope::Join { name: Some(whose), .. } if whose == name) {
            transaction.delete(key);
        }
    }
    transaction.delete(&key::router(name));
    Ok(())
}

/// What a tenant is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Unique in the domain.
    pub name: String,
    /// For humans.
    #[serde(default)]
    pub description: Option<String>,
    /// Its VNI: one that nobody has, of this domain's range or outside of it, where the tenant had it before; with `home`, one that
    /// this domain gave and does not tell, since it is not trusted. Where it is absent the next free one of this domain's is taken.
    #[serde(default)]
    pub vni: Option<u32>,
    /// The domain that gave it: a trusted one says which it is.
    #[serde(default)]
    pub home: Option<String>,
    /// The tenant's name there; the same where absent.
    #[serde(default)]
    pub home_name: Option<String>,
}

/// Makes a tenant, and gives it a VNI.
///
/// # Errors
/// Where there is one of that name, or no VNI for it.
pub fn create_tenant(transaction: &mut Transaction<'_>, new: &NewTenant) -> Done<Tenant> {
    check_name(&new.name)?;
    if transaction.get(&key::tenant(&new.name)).is_some() {
        return Err(Rejection::Conflict(format!(
            "there is a tenant `{}`",
            new.name
        )));
    }
    let domain = domain_of(transaction)?;
    let (vni, id) = match &new.home {
        None => {
            let vni = match new.vni {
                Some(vni) => chosen_vni(transaction, "vni", vni)?,
                None => free_vni(transaction, &domain)?,
            };
            transaction.put(Record::Vni(VniUse {
                vni,
                tenant: Some(new.name.clone()),
                service: None,
                free_at: 0,
                last: None,
            }));
            (vni, Some(random(8)))
        }
        Some(home) if *home == domain.name => {
            return Err(unfit(
                "home",
                home,
                "another domain: a tenant of this one has none",
            ));
        }
        Some(home) => {
            let offer = match new.vni {
                Some(vni) => check_vni(transaction, home, vni)?,
                None => {
                    let there = new.home_name.as_ref().unwrap_or(&new.name);
                    Some(offered(transaction, home, there)?)
                }
            };
            let vni = offer.as_ref().map(|one| one.vni).or(new.vni);
            let id = offer.and_then(|one| one.id);
            let vni = vni.unwrap_or_default();
            (foreign_vni(transaction, &domain, home, vni, None)?, id)
        }
    };
    let tenant = Tenant {
        name: new.name.clone(),
        vni,
        home: new.home.clone(),
        id,
        description: new.description.clone(),
    };
    transaction.put(Record::Tenant(tenant.clone()));
    Ok(tenant)
}

/// A VNI that another domain gave, which no tenant here has and which is not said to be another one's: for a tenant, or for a label of the
/// tenant with the VNI `owner`.
pub(crate) fn foreign_vni(
    transaction: &Transaction<'_>,
    domain: &Domain,
    home: &str,
    vni: u32,
    owner: Option<u32>,
) -> Done<u32> {
    let own = domain.first_vni..=domain.last_vni;
    if own.contains(&vni) || vni == 0 || vni > 16_777_214 {
        return Err(Rejection::Invalid(format!(
            "VNI {vni} is not of domain `{home}`: {}-{} are this domain's",
            domain.first_vni, domain.last_vni
        )));
    }
    unused(transaction, vni)?;
    let state = transaction.state();
    // Of a tenant its home knows best.
    if owner.is_none() && offer(state, home, vni).is_some() {
        return Ok(vni);
    }
    for one in state.by(&by::number(vni)) {
        let (teller, what) = match &one.record {
            Record::RemoteTenant(one) if owner.is_some() || one.home != home => {
                (&one.domain, format!("tenant `{}`", one.name))
            }
            Record::RemoteService(one) if owner != Some(one.vni) => {
                (&one.domain, format!("a service of VNI {}", one.vni))
            }
            _ => continue,
        };
        return Err(Rejection::Conflict(format!(
            "domain `{teller}` says that VNI {vni} is that of {what}: it is nothing else's here"
        )));
    }
    Ok(vni)
}

/// A VNI that no tenant and no service here has.
fn unused(transaction: &Transaction<'_>, vni: u32) -> Done<u32> {
    for one in transaction.state().by(&by::number(vni)) {
        return Err(Rejection::Conflict(match &one.record {
            Record::Tenant(tenant) => format!("tenant `{}` has VNI {vni}", tenant.name),
            Record::Service(service) => format!(
                "service `{}` of tenant `{}` has label {vni}",
                service.name, service.tenant
            ),
            _ => continue,
        }));
    }
    Ok(vni)
}

/// A VNI that an operator chooses for a tenant or a service of this domain: nobody has it, as far as is known, and it does not rest.
pub(crate) fn chosen_vni(transaction: &Transaction<'_>, field: &str, vni: u32) -> Done<u32> {
    if vni == 0 || vni > 16_777_214 {
        return Err(unfit(field, vni, "a VNI, 1 to 16777214"));
    }
    unused(transaction, vni)?;
    let mut others = transaction.state().by(&by::number(vni));
    let told = others.find_map(|one| match &one.record {
        Record::RemoteTenant(tenant) => Some((&tenant.domain, format!("tenant `{}`", tenant.name))),
        Record::RemoteService(service) => {
            Some((&service.domain, format!("service `{}`", service.name)))
        }
        _ => None,
    });
    if let Some((domain, what)) = told {
        return Err(Rejection::Conflict(format!(
            "{what} of domain `{domain}` has VNI {vni}: give that as `home`, or choose another one"
        )));
    }
    match transaction.get(&key::vni(vni)) {
        Some(Record::Vni(one)) if one.tenant.is_some() => Err(Rejection::Conflict(format!(
            "tenant `{}` has VNI {vni}",
            one.tenant.as_deref().unwrap_or_default()
        ))),
        Some(Record::Vni(one)) if one.free_at > now() => Err(Rejection::Conflict(format!(
            "VNI {vni} rests for {} s more: another tenant had it, whose packets may be on their way still",
            (one.free_at - now()) / 1000 + 1
        ))),
        _ => Ok(vni),
    }
}

/// The lowest VNI that nobody ever had, else the one that has rested longest.
pub(crate) fn free_vni(transaction: &Transaction<'_>, domain: &Domain) -> Done<u32> {
    let state = transaction.state();
    let mut next = state.unused_vni();
    // Those that this transaction has given.
    while transaction.get(&key::vni(next)).is_some() {
        next += 1;
    }
    if next <= domain.last_vni {
        return Ok(next);
    }
    let now = now();
    let rested = |record: &Record| match record {
        Record::Vni(one) if one.tenant.is_none() && one.free_at <= now => {
            let own = (domain.first_vni..=domain.last_vni).contains(&one.vni);
            own.then_some((one.free_at, one.vni))
        }
        _ => None,
    };
    // As this transaction has left them.
    let mut before = state.by(by::RESTING).map(|one| &one.record);
    let before = before.find_map(|one| {
        let same = transaction.get(&one.key()) == Some(one);
        rested(one).filter(|_| same)
    });
    let changed = transaction.changed_below("vni/");
    let changed = changed
        .filter_map(|key| rested(transaction.get(key)?))
        .min();
    let (_, vni) = before.into_iter().chain(changed).min().ok_or_else(|| {
        Rejection::Conflict(format!(
            "all VNIs of the domain ({}-{}) are given, or rest",
            domain.first_vni, domain.last_vni
        ))
    })?;
    Ok(vni)
}

/// What may change of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantChange {
    /// For humans.
    #[serde(default)]
    pub description: Option<String>,
}

/// Changes a tenant.
///
/// # Errors
/// Where there is none.
pub fn change_tenant(
    transaction: &mut Transaction<'_>,
    name: &str,
    change: &TenantChange,
) -> Done<Tenant> {
    let mut tenant = tenant_of(transaction, name)?;
    tenant.description.clone_from(&change.description);
    transaction.put(Record::Tenant(tenant.clone()));
    Ok(tenant)
}

/// Removes a tenant with its attachments and tokens; its VNI rests.
///
/// # Errors
/// Where there is none, or another domain's routers are told of it.
pub fn delete_tenant(transaction: &mut Transaction<'_>, name: &str) -> Done<()> {
    let tenant = tenant_of(transaction, name)?;
    let domain = domain_of(transaction)?;
    let routers = transaction.state().by(&by::peer_of(name));
    for router in routers.filter_map(as_router) {
        if let Some(peer) = router
            .peers
            .iter()
            .find(|one| one.tenants.iter().any(|one| one == name))
        {
            return Err(Rejection::Conflict(format!(
                "router `{}` shares it with `{}`: take it from that peer first",
                router.name, peer.name
            )));
        }
    }
    if let Some(domain) = shared_with(transaction.state(), name) {
        return Err(Rejection::Conflict(format!(
            "it is shared with domain `{domain}`: take it back first (weft domain unshare {domain} {name})"
        )));
    }
    let prefix = format!("attachment/{name}/");
    for (key, _) in transaction.state().below(&prefix) {
        transaction.delete(key);
    }
    delete_tokens(transaction, name);
    if tenant.home.is_none() {
        transaction.put(Record::Vni(VniUse {
            vni: tenant.vni,
            tenant: None,
            service: None,
            free_at: now() + u64::from(domain.quarantine) * 1000,
            last: None,
        }));
    }
    chains::forget_tenant(transaction, name)?;
    transaction.delete(&key::quota(name));
    grants::forget_tenant(transaction, name);
    transaction.delete(&key::tenant(name));
    Ok(())
}

/// Takes the tokens of a tenant's administrators back.
fn delete_tokens(transaction: &mut Transaction<'_>, name: &str) {
    for token in transaction.state().by(&by::token_of(name)) {
        transaction.delete(&token.record.key());
    }
}

/// Attaches a tenant to a router, or changes how it is. A way to the Internet is an operator's to give: `operator` says that one asks.
///
/// # Errors
/// Where there is no such tenant or router, the router would refuse a part of it, or an interface is another tenant's.
pub fn put_attachment(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    router: &str,
    new: &NewAttachment,
    operator: bool,
) -> Done<Attachment> {
    tenant_of(transaction, tenant)?;
    router_of(transaction, router)?;
    new.check(domain_of(transaction)?.asn)?;
    let before = match transaction.get(&key::attachment(tenant, router)) {
        Some(Record::Attachment(one)) => one.breakout.clone(),
        _ => None,
    };
    if !operator && before != new.breakout {
        return Err(Rejection::Forbidden(format!(
            "the breakout of `{tenant}` at `{router}` takes an operator's token: leave it as it is"
        )));
    }
    let own = key::attachment(tenant, router);
    for interface in &new.interfaces {
        chains::check_free(transaction.state(), router, interface, &own)?;
    }
    let attachment = Attachment {
        tenant: tenant.to_owned(),
        router: router.to_owned(),
        interfaces: new.interfaces.clone(),
        prefixes: new.prefixes.clone(),
        redistribute: new.redistribute.clone(),
        neighbors: new.neighbors.clone(),
        breakout: new.breakout.clone(),
    };
    transaction.put(Record::Attachment(attachment.clone()));
    Ok(attachment)
}

/// Detaches a tenant from a router.
///
/// # Errors
/// Where it is not attached there.
pub fn delete_attachment(
    transaction: &mut Transaction<'_>,
    tenant: &str,
    router: &str,
) -> Done<()> {
    let key = key::attachment(tenant, router);
    if transaction.get(&key).is_none() {
        return Err(Rejection::NotFound(format!(
            "tenant `{tenant}` is not attached to router `{router}`"
        )));
    }
    transaction.delete(&key);
    Ok(())
}

/// What going back in history undoes: what was there before the first of the changes since, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    records: BTreeMap<String, Option<Record>>,
    /// Tenants that were made since.
    made: BTreeSet<String>,
}

impl Undo {
    /// Undoes one more revision, the one behind those.
    pub fn add(&mut self, revision: Revision) {
        let kinds = ["tenant/", "attachment/", "vni/", "service/", "chain/"];
        for change in revision.changes {
            let key = &change.key;
            if key != key::DOMAIN && !kinds.iter().any(|kind| key.starts_with(kind)) {
                continue;
            }
            if let (Some(tenant), None) = (key.strip_prefix("tenant/"), &change.old) {
                self.made.insert(tenant.to_owned());
            }
            self.records.entry(change.key).or_insert(change.old);
        }
    }
}

/// Makes tenants, attachments, VNIs and the domain what they were. Tokens that were taken back stay so, routers are what they are, and
/// other domains are trusted as they are; a tenant that is no more is shared no more.
///
/// # Errors
/// Where an attachment would be to a router that is no more.
pub fn roll_back(transaction: &mut Transaction<'_>, undo: &Undo) -> Done<()> {
    for (key, old) in &undo.records {
        match old {
            Some(old) => transaction.put(old.clone()),
            None => transaction.delete(key),
        }
    }
    // A tenant that was made since is no more, or another one has its name: what was its own is not that one's.
    for tenant in &undo.made {
        forget_name(transaction, tenant);
    }
    for key in undo.records.keys() {
        check_attachment(transaction, key)?;
    }
    crate::chains::labels::rolled_back(transaction)
}

/// Takes from a tenant's name what an operator has said by it: tokens, quota, grants, and with whom it is shared.
fn forget_name(transaction: &mut Transaction<'_>, tenant: &str) {
    delete_tokens(transaction, tenant);
    transaction.delete(&key::quota(tenant));
    grants::forget_tenant(transaction, tenant);
    let state = transaction.state();
    for share in state.by(&by::shared(tenant)) {
        transaction.delete(&share.record.key());
    }
    for router in state.by(&by::peer_of(tenant)).filter_map(as_router) {
        if let Ok(mut router) = router_of(transaction, &router.name) {
            for peer in &mut router.peers {
                peer.tenants.retain(|name| name != tenant);
            }
            transaction.put(Record::Router(router));
        }
    }
}

fn check_attachment(transaction: &Transaction<'_>, key: &str) -> Done<()> {
    if let Some(Record::Service(one)) = transaction.get(key) {
        for attachment in &one.attachments {
            router_of(transaction, &attachment.router).map_err(|_| {
                Rejection::Conflict(format!(
                    "service `{}` of tenant `{}` had a node at router `{}`, which has been removed since",
                    one.name, one.tenant, attachment.router
                ))
            })?;
        }
    }
    if let Some(Record::Attachment(one)) = transaction.get(key) {
        tenant_of(transaction, &one.tenant)?;
        router_of(transaction, &one.router).map_err(|_| {
            Rejection::Conflict(format!(
                "tenant `{}` was attached to router `{}`, which has been removed since",
                one.tenant, one.router
            ))
        })?;
    }
    Ok(())
}
