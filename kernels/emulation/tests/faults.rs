//! That the emulation of sm_90a computes what is right and sees what is not: `cpp/faults.cpp` multiplies two small matrices by copies
//! of boxes, barriers and wgmma, right or with one fault, in each order of threads.

use limbeck_emulation::{ORDERS, Order, folder};
use std::process::Command;

/// How a run of the program ended.
#[derive(Debug)]
enum End {
    Right,
    Wrong,
    Stopped(String),
}

fn run(fault: &str, order: Order) -> Option<End> {
    let order = match order {
        Order::Ascending => 0,
        Order::Descending => 1,
        Order::Shuffled(seed) => seed,
    };
    let output = Command::new(folder()?.join("faults")).args([fault, &order.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(match output.status.code() {
        Some(0) => End::Right,
        Some(3) => End::Wrong,
        // Aborted.
        None => End::Stopped(said),
        Some(code) => panic!("{fault}: exit code {code}, {said}"),
    })
}

#[test]
fn a_product_of_sm_90a_is_right_in_every_order() {
    for order in ORDERS {
        match run("none", order) {
            None => return,
            Some(end) => assert!(matches!(end, End::Right), "{order:?}: {end:?}"),
        }
    }
}

#[test]
fn every_fault_is_seen() {
    // Wrong sums, or what is said; by which of the orders, where it takes one that brings the fault out.
    const WRONG: &str = "";
    let faults = [
        ("swizzle", WRONG, 3),
        ("stride", WRONG, 3),
        ("leading", WRONG, 3),
        ("major", WRONG, 3),
        ("aligned", "whose pattern begins elsewhere than its base offset", 3),
        ("expect", "whose phase never ends", 2),
        ("expect_more", "whose phase never ends", 3),
        ("unwaited", "more threads arrive at a barrier", 2),
        ("released", WRONG, 2),
        ("unfinished", "under way", 3),
        ("unfenced", "wgmma_fence is missing", 3),
        ("unseen", "mbarrier_init_fence is missing", 3),
        ("uncommitted", "not committed", 3),
    ];
    for (fault, words, orders) in faults {
        let mut seen = 0;
        for order in ORDERS {
            seen += match run(fault, order) {
                None => return,
                Some(End::Right) => 0,
                Some(End::Wrong) => usize::from(words.is_empty()),
                Some(End::Stopped(said)) => usize::from(!words.is_empty() && said.contains(words)),
            };
        }
        assert!(seen >= orders, "{fault} is seen in {seen} orders of threads, not in {orders}");
    }
}
