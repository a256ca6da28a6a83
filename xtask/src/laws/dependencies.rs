// SPDX-License-Identifier: MIT
//! Which crate may depend on which, as a table.

use super::Violation;
use super::graph::{Graph, Kind, Package};

/// A set of packages, by name. A trailing `*` stands for any ending, a trailing `/` for the crates in
/// that folder.
type Names = &'static [&'static str];

/// How far a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The whole program: dependencies of dependencies too, tests left out.
    Program,
    /// What the manifest lists, tests left out.
    Direct,
    /// What the manifest lists, tests included.
    DirectAndTests,
}

/// "`who`, except `but`, must not depend on `on`."
struct Rule {
    law: &'static str,
    who: Names,
    but: Names,
    on: Names,
    reach: Reach,
    why: &'static str,
}

/// Crates that start guests.
const BACKENDS: Names = &["virt_kvm", "virt_sev", "virt_soft"];
/// Everything that a hypervisor or guest memory consists of.
const HYPERVISORS: Names = &[
    "virt",
    "virt_*",
    "kvm_sys",
    "guest_memory",
    "kvm-ioctls",
    "kvm-bindings",
    "vm-memory",
];

const RULES: &[Rule] = &[
    Rule {
        law: "loaders-need-no-hypervisor",
        who: &["vm_loaders", "launch_plan", "launch_digest", "igvmtool"],
        but: &[],
        on: HYPERVISORS,
        reach: Reach::Program,
        why: "building and measuring need neither a hypervisor nor guest memory",
    },
    Rule {
        law: "core-names-no-backend",
        who: &["openvmm_core", "openvmm_defs"],
        but: &[],
        on: &["virt_*", "kvm_sys", "kvm-ioctls", "kvm-bindings"],
        reach: Reach::Program,
        why: "only openvmm_entry lists the backends",
    },
    Rule {
        law: "core-names-no-backend",
        who: &["openvmm_core", "openvmm_defs"],
        but: &[],
        on: BACKENDS,
        reach: Reach::DirectAndTests,
        why: "only openvmm_entry lists the backends",
    },
    Rule {
        law: "only-entry-lists-backends",
        who: &["*"],
        but: &["openvmm_entry"],
        on: BACKENDS,
        reach: Reach::Direct,
        why: "the worker takes a hypervisor by its trait",
    },
    Rule {
        law: "backends-stand-alone",
        who: BACKENDS,
        but: &[],
        on: BACKENDS,
        reach: Reach::Program,
        why: "backends share kvm_sys and x86emu, not each other",
    },
    Rule {
        law: "devices-know-no-vmm",
        who: &["devices/"],
        but: &[],
        on: &[
            "openvmm_core",
            "openvmm_entry",
            "virt",
            "virt_*",
            "kvm_sys",
            "kvm-ioctls",
            "vm_loaders",
            "launch_*",
        ],
        reach: Reach::Program,
        why: "a device depends on its bus trait and gets its world in its constructor",
    },
    Rule {
        law: "x86-stands-alone",
        who: &["x86/", "guest_protocol", "launch_plan"],
        but: &[],
        on: &[
            "openvmm_*",
            "virt",
            "virt_*",
            "kvm_sys",
            "vm_loaders",
            "chipset",
            "chipset_device",
        ],
        reach: Reach::Program,
        why: "definitions and the engine are below everything",
    },
    Rule {
        law: "one-holder-of-host-pointers",
        who: &["*"],
        but: &["guest_memory"],
        on: &["vm-memory"],
        reach: Reach::Direct,
        why: "only guest_memory maps guest RAM; others take GuestMemory or DmaMemory",
    },
    Rule {
        law: "one-door-to-kvm",
        who: &["*"],
        but: &["kvm_sys"],
        on: &["kvm-ioctls"],
        reach: Reach::Direct,
        why: "every KVM call goes through kvm_sys, so that the model can stand under it",
    },
    Rule {
        law: "model-predicts-nothing",
        who: &["kvm_model"],
        but: &[],
        on: &["launch_*", "vm_loaders", "virt", "virt_*", "igvm"],
        reach: Reach::Program,
        why: "the model computes digests from the bytes that it is handed; predictions are what it judges",
    },
    Rule {
        law: "one-instruction-engine",
        who: &["*"],
        but: &["x86emu"],
        on: &["iced-x86"],
        reach: Reach::Direct,
        why: "there is one instruction engine in the tree",
    },
    Rule {
        law: "igvm-crate-is-the-judge",
        who: &["*"],
        but: &["vm_loaders"],
        on: &["igvm"],
        reach: Reach::Direct,
        why: "reading, planning and writing are ours; the igvm crate judges in tests",
    },
];

/// Applies the table.
pub(super) fn check(graph: &Graph) -> Vec<Violation> {
    RULES.iter().flat_map(|rule| apply(graph, rule)).collect()
}

fn apply(graph: &Graph, rule: &Rule) -> Vec<Violation> {
    let mut broken = Vec::new();
    let bound = graph
        .members()
        .filter(|package| is_in(package, rule.who) && !is_in(package, rule.but));
    for package in bound {
        let reached = match rule.reach {
            Reach::Program => graph.closure(package),
            Reach::Direct => direct(graph, package, false),
            Reach::DirectAndTests => direct(graph, package, true),
        };
        for (need, chain) in reached {
            if need.name != package.name && is_in(need, rule.on) {
                broken.push(Violation {
                    law: rule.law,
                    at: package.name.clone(),
                    what: format!("{chain}: {}", rule.why),
                });
            }
        }
    }
    broken
}

fn direct<'g>(graph: &'g Graph, package: &'g Package, tests: bool) -> Vec<(&'g Package, String)> {
    graph
        .direct(package)
        .filter(|(_, kind)| tests || *kind == Kind::Build)
        .map(|(need, _)| (need, format!("{} -> {}", package.name, need.name)))
        .collect()
}

fn is_in(package: &Package, names: Names) -> bool {
    names.iter().any(|name| {
        if let Some(start) = name.strip_suffix('*') {
            package.name.starts_with(start)
        } else if name.ends_with('/') {
            package.folder.starts_with(name)
        } else {
            package.name == *name
        }
    })
}

/// No crate is a drawer for everything.
pub(super) fn check_names(graph: &Graph) -> Vec<Violation> {
    graph
        .members()
        .filter(|package| package.name.split(['_', '-']).any(super::sources::is_drawer_name))
        .map(|package| Violation {
            law: "no-drawer-names",
            at: package.folder.clone(),
            what: format!("crate {} must be named after what it is", package.name),
        })
        .collect()
}
