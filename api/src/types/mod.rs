//! What the API answers with.
//!
//! Times are seconds since; sizes are octets; prefixes, addresses and communities are texts in their usual form.
//!
//! | module | what it is of |
//! |---|---|
//! | `status` | the router as a whole |
//! | `neighbor` | BGP neighbours and their sessions |
//! | `bfd` | BFD sessions with them |
//! | `rib` | BGP routes |
//! | `label` | label communities |
//! | `tenant` | tenants and their tables |
//! | `chain` | services and service chains |
//! | `trace` | the way of a packet |
//! | `forwarding` | whether packets get where they should go |
//! | `kernel` | what the kernel holds |
//! | `tunnel` | what tunnels carried, and their far ends |
//! | `performance` | what a controller is told of it all |

mod bfd;
mod chain;
mod forwarding;
mod kernel;
mod label;
mod neighbor;
mod performance;
mod rib;
mod status;
mod tenant;
mod trace;
mod tunnel;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use bfd::*;
pub use chain::*;
pub use forwarding::*;
pub use kernel::*;
pub use label::*;
pub use neighbor::*;
pub use performance::*;
pub use rib::*;
pub use status::*;
pub use tenant::*;
pub use trace::*;
pub use tunnel::*;

/// Why something is as it is: a word for programs and a sentence for humans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why<C> {
    /// For programs; the values are stable.
    pub code: C,
    /// For humans; may change.
    pub text: String,
}

impl<C> Why<C> {
    /// From both.
    pub fn new(code: C, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// How many match in all, those of other pages too.
    pub total: u64,
    /// Hand this back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Gives an enum of plain words its text form, the one that serde uses. `tt`, not `literal`: the OpenAPI derive looks into the attribute, and
/// sees no value in a literal that a macro has taken.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:tt,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that stands for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

use words;

words! {
    /// An address family.
    Family {
        /// AFI 1, SAFI 1.
        Ipv4Unicast = "ipv4-unicast",
        /// AFI 2, SAFI 1.
        Ipv6Unicast = "ipv6-unicast",
    }
}

words! {
    /// How a prefix selects routes.
    PrefixMatch {
        /// That prefix alone.
        Exact = "exact",
        /// It and the more specific ones.
        Longer = "longer",
        /// It and the less specific ones.
        Shorter = "shorter",
        /// The most specific of it and the less specific ones: what a packet there would take.
        Longest = "longest",
    }
}

words! {
    /// How packets are carried to an endpoint.
    Encapsulation {
        /// RFC 7348, Ethernet payload.
        Vxlan = "vxlan",
        /// VXLAN-GPE, IP payload.
        VxlanGpe = "vxlan-gpe",
        /// GRE with key.
        Gre = "gre",
    }
}
