//! Places for connections.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tokio::sync::watch;

/// Places for connections: so many in all, and so many for one address (IPv6: for one /64).
///
/// Where all are taken, the connection that has waited longest without a request gives way ([`Place::gone`]): who opens many and asks for
/// nothing keeps nobody out.
#[derive(Debug)]
pub struct Places {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: HashMap<Option<IpAddr>, usize>,
    /// In the order in which they came to wait.
    waiting: BTreeMap<u64, Connection>,
    busy: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    by: Option<IpAddr>,
    /// Dropped where it has to go.
    _stay: watch::Sender<()>,
}

impl Taken {
    fn all(&self) -> usize {
        self.waiting.len() + self.busy.len()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, number: u64) {
        let there = self.waiting.remove(&number);
        let Some(there) = there.or_else(|| self.busy.remove(&number)) else {
            // It had given way.
            return;
        };
        if let Some(own) = self.by.get_mut(&there.by) {
            *own -= 1;
            if *own == 0 {
                self.by.remove(&there.by);
            }
        }
    }

    /// Takes a place from the one that has waited longest, of this address alone or of any.
    fn give_way(&mut self, of_address: Option<Option<IpAddr>>) -> bool {
        let mut waiting = self.waiting.iter();
        let oldest = waiting.find(|(_, one)| of_address.is_none_or(|by| one.by == by));
        let oldest = oldest.map(|(number, _)| *number);
        if let Some(number) = oldest {
            self.remove(number);
        }
        oldest.is_some()
    }
}

impl Places {
    /// So many in all, so many for each address.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from this address, `None` of a Unix socket, which shares what all have; `None` where all are taken by
    /// such as have asked for something.
    pub fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Place> {
        let by = from.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
            address => address,
        });
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let each = match by {
            Some(_) => self.each,
            None => self.all,
        };
        let own = taken.by.get(&by).copied().unwrap_or_default();
        if own >= each && !taken.give_way(Some(by)) {
            return None;
        }
        if taken.all() >= self.all && !taken.give_way(None) {
            return None;
        }
        let (stay, gone) = watch::channel(());
        let number = taken.number();
        let connection = Connection { by, _stay: stay };
        taken.waiting.insert(number, connection);
        *taken.by.entry(by).or_default() += 1;
        Some(Place {
            places: self.clone(),
            own: Mutex::new(Own {
                number,
                requests: 0,
            }),
            gone,
        })
    }
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    own: Mutex<Own>,
    gone: watch::Receiver<()>,
}

#[derive(Debug)]
struct Own {
    number: u64,
    /// Requests that are not answered yet, and streams.
    requests: usize,
}

impl Place {
    /// The same, where whoever asks for something keeps this place until it is answered; for good with a stream of gRPC.
    pub fn kept(self: &Arc<Self>, app: Router) -> Router {
        let place = self.clone();
        app.layer(from_fn(move |request: Request, next: Next| {
            let place = place.clone();
            async move {
                let _asks = Asks::new(&place);
                let answer = next.run(request).await;
                if is_stream(&answer) {
                    place.busy();
                }
                answer
            }
        }))
    }

    /// Resolves when another connection has the place: this one is to be closed.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // Nothing is sent: the sender goes.
        while gone.changed().await.is_ok() {}
    }

    /// Something is asked for: the place is kept until [`Self::waits`] says so as often as this.
    pub fn busy(&self) {
        self.turn(|taken, own| {
            own.requests += 1;
            if let Some(one) = taken.waiting.remove(&own.number) {
                taken.busy.insert(own.number, one);
            }
        });
    }

    /// What was asked for has been answered.
    pub fn waits(&self) {
        self.turn(|taken, own| {
            own.requests -= 1;
            if own.requests == 0
                && let Some(one) = taken.busy.remove(&own.number)
            {
                own.number = taken.number();
                taken.waiting.insert(own.number, one);
            }
        });
    }

    fn turn(&self, change: impl FnOnce(&mut Taken, &mut Own)) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut taken, &mut own);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turn(|taken, own| taken.remove(own.number));
    }
}

/// A request that is being answered, also where who asked has gone meanwhile.
struct Asks(Arc<Place>);

impl Asks {
    fn new(place: &Arc<Place>) -> Self {
        place.busy();
        Self(place.clone())
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.0.waits();
    }
}

/// An answer of gRPC that is no refusal: those have their status at once.
fn is_stream(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        && !answer.headers().contains_key("grpc-status")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    fn from(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn places_are_few_for_all_and_fewer_for_each_and_come_back() {
        let places = Places::new(3, 2);
        let take = |address: Option<IpAddr>| {
            let place = places.take(address)?;
            place.busy();
            Some(place)
        };
        let first = take(from("2001:db8::1")).unwrap();
        let _second = take(from("2001:db8::2")).unwrap();
        assert!(take(from("2001:db8::3")).is_none(), "one /64");
        let _third = take(from("192.0.2.1")).unwrap();
        assert!(take(from("192.0.2.2")).is_none(), "all are taken");
        drop(first);
        let _fourth = take(from("::ffff:192.0.2.1")).unwrap();
        assert!(take(None).is_none());
    }

    #[tokio::test]
    async fn who_waits_longest_without_a_request_gives_way() {
        let places = Places::new(3, 2);
        let asks = places.take(from("192.0.2.1")).unwrap();
        asks.busy();
        let silent = places.take(from("192.0.2.1")).unwrap();
        // Of the same address where that has its share.
        let next = places.take(from("192.0.2.1")).unwrap();
        silent.gone().await;
        drop(silent);
        let other = places.take(from("192.0.2.2")).unwrap();
        // Of any where all are taken.
        let third = places.take(from("192.0.2.3")).unwrap();
        next.gone().await;
        other.busy();
        third.busy();
        assert!(places.take(from("192.0.2.4")).is_none());
        asks.waits();
        assert!(places.take(from("192.0.2.4")).is_some());
        asks.gone().await;
    }
}
