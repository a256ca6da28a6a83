// SPDX-License-Identifier: MIT
//! Linux keeps time by the time-stamp counter, whose frequency it is told.

use crate::guests::Linux;
use vmm_tests::{Backend, Vm, skip};

/// A minute of sleep by two clocks, what Linux chose, and what it said about it.
const LOOK: &str = "cd /sys/devices/system/clocksource/clocksource0\n\
                    echo before=$(cat current_clocksource)\n\
                    rtc() { cat /sys/class/rtc/rtc0/since_epoch; }\n\
                    a=$(date +%s); b=$(rtc); sleep 60; c=$(date +%s); d=$(rtc)\n\
                    echo by tsc $((c - a)) by rtc $((d - b)) ahead $((c - d))\n\
                    echo after=$(cat current_clocksource) of $(cat available_clocksource)\n\
                    dmesg | grep -i -e tsc -e clocksource -e pit\necho end\npoweroff -f\n";

/// The minute costs nothing with `--deterministic`: an idle guest skips to its next deadline.
fn keeps_time(name: &str, processors: &str) {
    let linux = match Linux::with(LOOK) {
        Ok(linux) => linux,
        Err(reason) => return skip(name, &reason),
    };
    let ended = Vm::builder(Backend::Soft)
        .args(["-m", "512M", "-p", processors, "--deterministic"])
        .args(["-c", "console=ttyS0"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
        .run();
    let console = ended.stdout;
    assert_eq!(ended.code, 0, "{console}\n{}", ended.stderr);
    let value = |key: &str| {
        let line = console.lines().find_map(|line| line.trim_end().strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{console}"))
    };
    assert_eq!(value("before="), "tsc");
    assert_eq!(value("after="), "tsc of tsc kvm-clock acpi_pm");
    let minute: Vec<i64> = value("by tsc ")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [by_tsc, by_rtc, ahead] = minute[..] else {
        panic!("{minute:?}\n{console}");
    };
    assert!((60..=61).contains(&by_tsc), "{console}");
    assert!((by_tsc - by_rtc).abs() <= 1 && ahead.abs() <= 1, "{console}");
    assert!(
        console.contains("tsc: Detected 1000.000 MHz processor"),
        "{console}"
    );
    for complaint in ["calibrate against", "calibration failed", "unstable", "skew"] {
        assert!(!console.contains(complaint), "{complaint}\n{console}");
    }
}

#[test]
fn one_processor_keeps_time_by_the_tsc() {
    keeps_time("one_processor_keeps_time_by_the_tsc", "1");
}

#[test]
fn two_processors_keep_time_by_the_tsc() {
    keeps_time("two_processors_keep_time_by_the_tsc", "2");
}
