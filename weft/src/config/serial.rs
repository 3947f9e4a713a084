//! How types of other crates look in YAML and in the JSON Schema.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::marker::PhantomData;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;
use weft_bgp_wire::Asn;
use weft_overlay::{Vni, VniSet, words};

use super::router::GracefulRestart;
use super::tenant::Redistribute;

pub(super) fn display<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn display_list<S: Serializer>(
    values: &[impl Display],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}

pub(super) fn asn<S: Serializer>(asn: &Asn, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(asn.0)
}

pub(super) fn vni<S: Serializer>(vni: &Vni, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(vni.get())
}

pub(super) fn vnis<S: Serializer>(vnis: &[Vni], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(vnis.iter().map(|vni| vni.get()))
}

pub(super) fn graceful_restart<S: Serializer>(
    value: &Option<GracefulRestart>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(timers) => timers.serialize(to),
        None => to.serialize_bool(false),
    }
}

pub(super) fn vni_set<S: Serializer>(set: &VniSet, to: S) -> Result<S::Ok, S::Error> {
    if set.is_empty() || *set == VniSet::all() {
        return to.collect_str(set);
    }
    let ranges = set.ranges().iter();
    to.collect_seq(ranges.map(|(first, last)| VniRange(*first, *last)))
}

impl Serialize for Redistribute {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Connected => to.serialize_str("connected"),
            Self::Static => to.serialize_str("static"),
            Self::Protocol(number) => {
                match words::PROTOCOLS.iter().find(|(_, known)| known == number) {
                    Some((name, _)) => to.serialize_str(name),
                    None => to.serialize_u8(*number),
                }
            }
        }
    }
}

pub(super) fn some_vni_set<S: Serializer>(set: &Option<VniSet>, to: S) -> Result<S::Ok, S::Error> {
    match set {
        Some(set) => vni_set(set, to),
        None => to.serialize_none(),
    }
}

pub(super) fn some_display<S: Serializer>(
    value: &Option<impl Display>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

pub(super) fn display_lists<S: Serializer>(
    lists: &BTreeMap<String, Vec<impl Display>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let texts = |list: &Vec<_>| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    to.collect_map(lists.iter().map(|(name, list)| (name, texts(list))))
}

struct VniRange(Vni, Vni);

impl Serialize for VniRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 == self.1 {
            true => to.serialize_u32(self.0.get()),
            false => to.collect_str(&format_args!("{}-{}", self.0, self.1)),
        }
    }
}

macro_rules! schema {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schema! {
    /// An AS number that may stand for a router or an overlay (RFC 7607, RFC 7300).
    AsNumber = { "type": "integer", "minimum": 1, "maximum": 4294967294_u32 };
    /// A VNI.
    VniNumber = { "type": "integer", "minimum": 1, "maximum": 16777214 };
    /// RFC 4271 section 4.2.
    HoldTime = { "type": "integer", "minimum": 0, "maximum": 65535, "not": { "enum": [1, 2] } };
    /// A time in milliseconds, or with its unit.
    Interval = { "oneOf": [
        { "type": "integer", "minimum": 50, "maximum": 60000 },
        { "type": "string", "pattern": "^[0-9]{1,5}(ms|s)$" },
    ] };
    /// A prefix without host bits.
    Prefix = { "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" };
    /// `Family`.
    FamilySchema = { "type": "string", "enum": ["ipv4-unicast", "ipv6-unicast"] };
    /// `Encapsulation`.
    EncapsulationSchema = { "type": "string", "enum": ["vxlan", "vxlan-gpe", "gre"] };
    /// `Redistribute`.
    RedistributeSchema = { "oneOf": [
        { "type": "string", "enum": [
            "connected", "static", "ra", "zebra", "bird", "dhcp", "keepalived", "babel", "openr", "bgp", "isis",
            "ospf", "rip", "eigrp",
        ] },
        { "type": "integer", "minimum": 5, "maximum": 255 },
    ] };
    /// An IP protocol.
    ProtocolSchema = { "oneOf": [
        { "type": "string", "enum": ["tcp", "udp", "sctp", "icmp", "icmpv6"] },
        { "type": "integer", "minimum": 0, "maximum": 255 },
    ] };
    /// Addresses of a service node.
    NodeSchema = { "oneOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 2 },
    ] };
    /// Ports.
    PortsSchema = { "oneOf": [
        { "type": "integer", "minimum": 0, "maximum": 65535 },
        { "type": "string", "pattern": "^[0-9]{1,5}-[0-9]{1,5}$" },
    ] };
    /// `VniSet`.
    VniSetSchema = { "oneOf": [
        { "type": "string", "enum": ["all", "none"] },
        { "type": "array", "items": { "oneOf": [
            { "type": "integer", "minimum": 1, "maximum": 16777214 },
            { "type": "string", "pattern": "^[0-9]{1,8}-[0-9]{1,8}$" },
        ] } },
    ] };
    /// `PrefixItem`.
    PrefixItemSchema = { "oneOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": {
                "prefix": { "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" },
                "ge": { "type": "integer", "minimum": 0, "maximum": 128 },
                "le": { "type": "integer", "minimum": 0, "maximum": 128 },
            },
            "required": ["prefix"],
            "additionalProperties": false,
        },
    ] };
    /// `NumberRange`.
    NumberRangeSchema = { "oneOf": [
        { "type": "integer", "minimum": 0, "maximum": 4294967295_u32 },
        { "type": "string", "pattern": "^[0-9]{1,10}-([0-9]{1,10})?$" },
    ] };
    /// `Origin`.
    OriginSchema = { "type": "string", "enum": ["igp", "egp", "incomplete"] };
    /// `Med`.
    MedSchema = { "oneOf": [
        { "type": "integer", "minimum": 0, "maximum": 4294967295_u32 },
        { "type": "string", "const": "remove" },
    ] };
    /// `Prepend`.
    PrependSchema = { "oneOf": [
        { "type": "integer", "minimum": 1, "maximum": 32 },
        {
            "type": "object",
            "properties": {
                "asn": { "type": "integer", "minimum": 1, "maximum": 4294967294_u32 },
                "times": { "type": "integer", "minimum": 1, "maximum": 32 },
            },
            "additionalProperties": false,
        },
    ] };
    /// `Communities`.
    CommunitiesSchema = { "oneOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" } },
        {
            "type": "object",
            "properties": { "all": { "oneOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
            ] } },
            "required": ["all"],
            "additionalProperties": false,
        },
    ] };
    /// `Passing`.
    PassingSchema = { "oneOf": [
        { "type": "string" },
        { "type": "array", "items": { "oneOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "prefix": { "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" },
                    "ge": { "type": "integer", "minimum": 0, "maximum": 128 },
                    "le": { "type": "integer", "minimum": 0, "maximum": 128 },
                },
                "required": ["prefix"],
                "additionalProperties": false,
            },
        ] } },
    ] };
    /// `PrefixRange`.
    PrefixRangeSchema = { "oneOf": [
        { "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" },
        {
            "type": "object",
            "properties": {
                "prefix": { "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" },
                "ge": { "type": "integer", "minimum": 0, "maximum": 128 },
                "le": { "type": "integer", "minimum": 0, "maximum": 128 },
            },
            "required": ["prefix"],
            "additionalProperties": false,
        },
    ] };
}

/// A boolean, or the details.
pub(super) struct BoolOr<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for BoolOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("BoolOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let details = generator.subschema_for::<T>();
        json_schema!({ "oneOf": [{ "type": "boolean" }, details] })
    }
}

/// One of two.
pub(super) struct Either<A, B>(PhantomData<(A, B)>);

impl<A: JsonSchema, B: JsonSchema> JsonSchema for Either<A, B> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}Or{}", A::schema_name(), B::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<A>();
        let other = generator.subschema_for::<B>();
        json_schema!({ "oneOf": [one, other] })
    }
}

/// One, or a list.
pub(super) struct OneOrMany<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "oneOf": [one, { "type": "array", "items": one }] })
    }
}

/// What the neighbour is told.
#[derive(JsonSchema)]
#[schemars(transparent, inline)]
#[expect(dead_code, reason = "for the schema")]
pub(super) struct Communication(#[schemars(length(max = 255))] String);

/// The words that a session is kept down with; `true` for none.
pub(super) fn shutdown<S: Serializer>(
    words: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match words.as_deref() {
        Some("") => serializer.serialize_bool(true),
        Some(words) => serializer.serialize_str(words),
        None => serializer.serialize_bool(false),
    }
}

/// BFD, where `false` says that there is none: a group may have it.
pub(super) fn bfd<S: Serializer>(
    bfd: &Option<super::bfd::Bfd>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match bfd {
        Some(bfd) => bfd.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

/// The network of an address with host bits, for the suggestion; `None` where there are none.
pub(super) fn host_bits(net: IpNet) -> Option<IpNet> {
    (net.addr() != net.network()).then(|| net.trunc())
}

/// A key that may be absent may not be null: takes null out of what schemars makes of an `Option`.
pub(super) fn strip_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [name] = &types[..] {
                    let name = name.clone();
                    object.insert("type".to_owned(), name);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(choice)] = &choices[..] {
                    let choice = choice.clone();
                    object.remove("anyOf");
                    object.extend(choice);
                }
            }
            object.values_mut().for_each(strip_null);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_null),
        _ => {}
    }
}

/// Choices as mappings of one key, where YAML would have tags of its own.
pub(super) fn mappings<S: Serializer>(
    list: &[impl Serialize],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let list: Result<Vec<Value>, _> = list.iter().map(serde_json::to_value).collect();
    list.map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}
