// SPDX-License-Identifier: MIT
//! Dropping a partition gives everything back. A test binary of its own, because it counts the process's
//! descriptors, mappings and threads.

#[allow(dead_code, reason = "this binary needs only a part of it")]
#[path = "guest/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use rig::{SPIN, real_mode_state, rig};

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn kvm_mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|l| l.contains("kvm"))
        .count()
}

/// Descriptors, threads and mapped run structures of this process. KVM adds a kernel thread of its own to
/// the process for as long as a VM exists.
fn resources() -> [usize; 3] {
    [count("/proc/self/fd"), count("/proc/self/task"), kvm_mappings()]
}

#[test]
fn a_dropped_partition_leaves_no_descriptor_mapping_or_thread() {
    if rig::kvm().is_none() {
        return;
    }
    let before = resources();
    for _ in 0..5 {
        let mut rig = rig(2, Vec::new()).unwrap();
        rig.load(SPIN, &real_mode_state());
        let threads = rig.spawn();
        std::thread::sleep(Duration::from_millis(5));
        let during = resources();
        assert_eq!(
            (during[0] - before[0], during[2] - before[2]),
            (3, 2),
            "a vm and two vps"
        );
        assert!(during[1] >= before[1] + 2);
        rig.signals.set_stop(true);
        let runners: Vec<_> = threads.into_iter().map(|t| t.join().unwrap().0).collect();
        // The signal table outlives the partition, as it does in an interrupt controller.
        let signals = rig.signals.clone();
        drop(rig);
        drop(runners);
        signals.wake(0);
        // Threads that were joined leave the list a moment later.
        let patience = Instant::now();
        while resources() != before && patience.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(resources(), before);
    }
}
