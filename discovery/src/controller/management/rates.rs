//! How often a token may ask that is not an operator's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weft_api::bounds::Rate;

use crate::database::Rejection;

/// Requests of one token at once; then one each [`EVERY`].
const BURST: u32 = 500;
const EVERY: Duration = Duration::from_millis(10);
/// Tokens whose requests are counted. When there are more, counting begins anew.
const TOKENS: usize = 10_000;

/// Requests of each token lately.
#[derive(Debug, Default)]
pub(in crate::controller) struct Rates(Mutex<HashMap<String, Rate>>);

impl Rates {
    /// One more request of a token that is known.
    ///
    /// # Errors
    /// [`Rejection::TooMany`].
    pub(super) fn pass(&self, token: &str) -> Result<(), Rejection> {
        // Nobody panics with it.
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= TOKENS && !rates.contains_key(token) {
            rates.clear();
        }
        let rate = rates.entry(token.to_owned());
        match rate.or_insert_with(|| Rate::new(BURST, EVERY)).pass() {
            Some(_) => Ok(()),
            None => Err(Rejection::TooMany(format!(
                "token {token} asks too often: {BURST} requests at once, then {} a second; ask again in a second",
                1000 / EVERY.as_millis()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_asks_too_often_is_told_so_and_others_are_not() {
        let rates = Rates::default();
        let refused = (0..BURST * 10).find_map(|_| rates.pass("a").err());
        let refused = refused.expect("an end").to_string();
        assert!(refused.contains("token a asks too often"), "{refused}");
        assert_eq!(rates.pass("b"), Ok(()));
    }
}
