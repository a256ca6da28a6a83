// SPDX-License-Identifier: MIT
//! A short run of the mutator; `cargo run --release -p vm_loaders --example mutate` runs longer ones.

#[path = "../../examples/mutate/mutator.rs"]
mod mutator;

use mutator::{Depth, corpus, mutate, read_and_plan, use_plans};
use soak_case::Random;

#[test]
fn the_corpus_comes_all_the_way() {
    let mut depth = Depth::default();
    let corpus = corpus();
    for bytes in &corpus {
        let plans = read_and_plan(bytes, &mut depth);
        assert!(!plans.is_empty());
        use_plans(bytes, &plans, &mut depth);
    }
    assert_eq!(depth.read, corpus.len() as u64);
    assert_eq!((depth.moved, depth.encoded), (1, depth.planned));
}

#[test]
fn damaged_files_break_no_promise() {
    let corpus = corpus();
    let mut depth = Depth::default();
    let count = 3000;
    for case in 0..count {
        let mut random = Random::of_case(1, case);
        let bytes = mutate(&mut random, &corpus[case as usize % corpus.len()]);
        let plans = read_and_plan(&bytes, &mut depth);
        use_plans(&bytes, &plans, &mut depth);
    }
    // Damage that never passes the first check would prove nothing.
    assert!(depth.read > count / 2, "{depth:?}");
    assert!(
        depth.planned > count / 20 && depth.bound > 20 && depth.moved > 5,
        "{depth:?}"
    );
    assert!(depth.encoded > count / 50, "{depth:?}");
}

#[test]
fn a_case_is_the_same_every_time() {
    let corpus = corpus();
    let make = |case| mutate(&mut Random::of_case(7, case), &corpus[3]);
    assert!(make(11) == make(11));
    assert!(make(11) != make(12));
}
