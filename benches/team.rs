//! What it costs threads to work together: an empty job and a barrier of a `Team`, beside an empty `rayon::join`.
//!
//! Meetings are counted in pairs, as attention needs them. rayon is measured awake, called again and again.

use criterion::{Criterion, criterion_group, criterion_main};
use limbeck::team::Team;
use std::hint::black_box;

/// Pairs of barriers in a job.
const PAIRS: usize = 500;

fn together(criterion: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let mut team = Team::new(threads);
    let mut group = criterion.benchmark_group(format!("{threads} threads"));
    group.bench_function("team, empty job", |bencher| {
        bencher.iter(|| {
            team.run(&|member| {
                black_box(member.index());
            });
        });
    });
    group.throughput(criterion::Throughput::Elements(2 * PAIRS as u64));
    group.bench_function("team, barriers", |bencher| {
        bencher.iter(|| {
            team.run(&|member| {
                for _ in 0..PAIRS {
                    member.barrier();
                    member.barrier();
                }
            });
        });
    });
    group.finish();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    criterion.bench_function("rayon, empty join", |bencher| {
        // From inside the pool, where a join is cheapest.
        pool.install(|| bencher.iter(|| rayon::join(|| black_box(1), || black_box(2))));
    });
    criterion.bench_function("rayon, empty join from outside", |bencher| {
        bencher.iter(|| pool.install(|| rayon::join(|| black_box(1), || black_box(2))));
    });
    criterion.bench_function("rayon, broadcast", |bencher| {
        bencher.iter(|| pool.broadcast(|thread| black_box(thread.index())));
    });
}

criterion_group!(benches, together);
criterion_main!(benches);
