//! Micro-benchmarks of the hot path: `cargo bench -p weft-load`.

use divan::Bencher;
use divan::counter::ItemsCount;
use weft_bgp_wire::{
    AttributeContext, AttributeDecoder, HEADER_LEN, PeerType, UpdateView, next_frame,
};
use weft_load::rib::{Bench, sender};
use weft_load::{self as load, Routes};

const COUNT: usize = 50_000;

fn main() {
    divan::main();
}

fn routes(tenant: bool) -> Routes {
    if tenant {
        load::tenant(COUNT)
    } else {
        load::internet(COUNT)
    }
}

/// Frames and attributes of a stream of UPDATEs, nothing else.
#[divan::bench(args = [false, true])]
fn decode(bencher: Bencher<'_, '_>, tenant: bool) {
    let stream = routes(tenant).announce(sender(1));
    let context = AttributeContext {
        four_octet_as: true,
        peer: PeerType::External,
        has_nlri: true,
        families: [true; 2],
        extended_next_hop: false,
    };
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        let mut decoder = AttributeDecoder::new();
        let mut rest = &stream[..];
        while let Ok(Some(frame)) = next_frame(rest, 4096) {
            if let Ok(update) = UpdateView::split(&rest[HEADER_LEN..frame.len]) {
                divan::black_box(decoder.decode(update.attributes, &context).is_ok());
            }
            rest = &rest[frame.len..];
        }
    });
}

/// A new table: every set interned, every prefix inserted.
#[divan::bench(args = [false, true])]
fn intern(bencher: Bencher<'_, '_>, tenant: bool) {
    let stream = routes(tenant).announce(sender(1));
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| Bench::new(1))
        .bench_local_values(|mut bench| {
            bench.take(1, &stream);
            bench
        });
}

/// The same table once more, from one neighbour more: every prefix is decided.
#[divan::bench(args = [1, 3, 7])]
fn best_path(bencher: Bencher<'_, '_>, before: u16) {
    let routes = routes(false);
    let last = routes.announce(sender(before + 1));
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            let mut bench = Bench::new(before + 1);
            for at in 1..=before {
                bench.take(at, &routes.announce(sender(at)));
            }
            bench
        })
        .bench_local_values(|mut bench| {
            bench.take(before + 1, &last);
            bench
        });
}

/// Export and encoding of a whole table.
#[divan::bench(args = [false, true])]
fn encode(bencher: Bencher<'_, '_>, tenant: bool) {
    let stream = routes(tenant).announce(sender(1));
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            let mut bench = Bench::new(1);
            bench.take(1, &stream);
            bench
        })
        .bench_local_values(|mut bench| {
            divan::black_box(bench.send());
            bench
        });
}
