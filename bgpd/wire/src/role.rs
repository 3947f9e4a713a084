//! Roles of the two ends of an eBGP session, and what they mean for ONLY_TO_CUSTOMER (RFC 9234).

use std::fmt;

use crate::Asn;

/// What one end of a session is to the other (section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// It carries the other's packets to everywhere.
    Provider = 0,
    /// A route server.
    RouteServer = 1,
    /// A client of a route server.
    RouteServerClient = 2,
    /// The other carries its packets to everywhere.
    Customer = 3,
    /// Both carry packets to their own customers.
    Peer = 4,
}

impl Role {
    /// The role of an octet of the capability; `None` for one that is not assigned.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            _ => return None,
        })
    }

    /// What the other end has to be (section 4.2).
    pub fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }

    /// A route with this ONLY_TO_CUSTOMER comes from a neighbour, in `asn`, that was not to pass it on to who has this role (section 5,
    /// ingress 1 and 2).
    pub fn is_leak(self, only_to_customer: Asn, asn: Asn) -> bool {
        match self {
            Self::Provider | Self::RouteServer => true,
            Self::Peer => only_to_customer != asn,
            Self::Customer | Self::RouteServerClient => false,
        }
    }

    /// What comes in without ONLY_TO_CUSTOMER gets the neighbour's AS there (section 5, ingress 3).
    pub fn marks_import(self) -> bool {
        matches!(self, Self::Customer | Self::Peer | Self::RouteServerClient)
    }

    /// What goes out without ONLY_TO_CUSTOMER gets our AS there (section 5, egress 1).
    pub fn marks_export(self) -> bool {
        matches!(self, Self::Provider | Self::Peer | Self::RouteServer)
    }

    /// What has ONLY_TO_CUSTOMER does not go out (section 5, egress 2).
    pub fn holds_back(self) -> bool {
        self.marks_import()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::RouteServer => "rs",
            Self::RouteServerClient => "rs-client",
            Self::Customer => "customer",
            Self::Peer => "peer",
        })
    }
}
