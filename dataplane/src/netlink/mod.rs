//! Netlink: octets, a socket that sends batches, the objects that the data plane makes.

#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod filters;
#[cfg(test)]
mod golden;
pub(crate) mod links;
pub(crate) mod objects;
pub(crate) mod octets;
pub(crate) mod socket;
