//! One fixed load through the RIB, for a count of instructions: `bench/load/instructions` runs it under callgrind.

use weft_load::rib::{Bench, sender};

fn main() {
    let (internet, tenant) = (weft_load::internet(20_000), weft_load::tenant(10_000));
    let streams = [
        internet.announce(sender(1)),
        internet.announce(sender(2)),
        tenant.announce(sender(1)),
        internet.churn(5_000).announce(sender(1)),
        internet.withdraw(),
        tenant.withdraw(),
    ];
    let left = counted(&streams);
    assert_eq!(left, 20_000, "what the second sender announced");
}

/// What is counted.
#[inline(never)]
fn counted(streams: &[Vec<u8>; 6]) -> usize {
    let mut bench = Bench::new(2);
    for (stream, from) in streams.iter().zip([1, 2, 1, 1, 1, 1]) {
        for piece in pieces(stream) {
            bench.take(from, piece);
            bench.send();
        }
    }
    bench.prefixes()
}

/// About 64 KiB of whole messages at a time, as sockets give them.
fn pieces(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        let mut end = 0;
        while end < 64 * 1024
            && let Some(length) = rest.get(end + 16..end + 18)
        {
            end += usize::from(u16::from_be_bytes([length[0], length[1]]));
        }
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}
