// SPDX-License-Identifier: MIT
//! The hypervisors that tests run on, and how a test says that it cannot run.

use std::fs::OpenOptions;

/// Prints the line that `cargo xtask test` counts. The caller returns after it.
pub fn skip(name: &str, reason: &str) {
    println!("skipped: {name}: {reason}");
}

/// Names the only hypervisor that tests may use (`cargo xtask test --hypervisor`).
const ONLY: &str = "OPENVMM_TEST_HYPERVISOR";

/// A hypervisor of `openvmm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// /dev/kvm.
    Kvm,
    /// The software CPU.
    Soft,
}

impl Backend {
    /// As `--hypervisor` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Soft => "soft",
        }
    }

    /// Why it cannot be used here, if so.
    pub fn unavailable(self) -> Option<String> {
        if let Ok(only) = std::env::var(ONLY)
            && only != self.name()
        {
            return Some(format!("{ONLY} is {only}"));
        }
        match self {
            Self::Soft => None,
            Self::Kvm => {
                let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
                opened.err().map(|error| format!("/dev/kvm: {error}"))
            }
        }
    }
}

/// Makes one test per backend from a body that takes the backend; a backend that the machine does not
/// have skips.
#[macro_export]
macro_rules! on_every_backend {
    ($($(#[$attribute:meta])* fn $name:ident($backend:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every body uses all of its module's imports")]
            use super::*;

            fn body($backend: $crate::Backend) $body

            fn run(backend: $crate::Backend) {
                match backend.unavailable() {
                    Some(reason) => {
                        $crate::skip(concat!(module_path!(), "::", stringify!($name)), &reason);
                    }
                    None => body(backend),
                }
            }

            $(#[$attribute])*
            #[test]
            fn kvm() {
                run($crate::Backend::Kvm);
            }

            $(#[$attribute])*
            #[test]
            fn soft() {
                run($crate::Backend::Soft);
            }
        }
    )*};
}
