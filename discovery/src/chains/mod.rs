//! Services of tenants, and the chains that lead their packets through them.
//!
//! | module | what it is |
//! |---|---|
//! | [`records`] | what is kept of them |
//! | [`plan`] | how routers plan by them |
//! | [`past`] | chains that a tenant has had |
//! | [`labels`] | the labels of services, and when other ones are given |
//! | [`operations`] | what may be changed, and how |
//! | [`view`] | what a router is told of them |

pub(crate) mod labels;
pub mod operations;
pub(crate) mod past;
pub(crate) mod plan;
pub mod records;
pub mod view;
