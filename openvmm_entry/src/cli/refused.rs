// SPDX-License-Identifier: MIT
//! Options of OpenVMM that are known and refused by name, so that nobody has to wonder whether they
//! were misspelled. They stay out of the help text.

use clap::Args;

/// Refused options. All take what OpenVMM's take.
#[derive(Debug, Args)]
pub(crate) struct RefusedArgs {
    #[arg(long, hide = true)]
    vtl2: bool,
    #[arg(long, hide = true)]
    vtl2_gfx: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    vtl2_settings: Option<String>,
    #[arg(long, hide = true)]
    no_alias_map: bool,
    #[arg(long, hide = true, value_name = "POLICY")]
    late_map_vtl0_policy: Option<String>,
    #[arg(long, hide = true)]
    vmbus_redirect: bool,
    #[arg(long, hide = true)]
    get: bool,
    #[arg(long, hide = true)]
    no_get: bool,
    #[arg(long, hide = true)]
    pcat: bool,
}

impl RefusedArgs {
    /// The first refused option that was given, and why it is refused.
    pub(crate) fn first(&self) -> Option<(&'static str, &'static str)> {
        const VTL2: &str = "vtl2 (OpenHCL) is not available on this hypervisor; boot the vtl0 payload itself, \
                            for example with --igvm type=uefi,path=FILE";
        const PCAT: &str = "the generation 1 machine with a PC BIOS is not available; boot UEFI with --uefi or a \
                            kernel with -k";
        [
            (self.vtl2, "--vtl2", VTL2),
            (self.vtl2_gfx, "--vtl2-gfx", VTL2),
            (self.vtl2_settings.is_some(), "--vtl2-settings", VTL2),
            (self.no_alias_map, "--no-alias-map", VTL2),
            (
                self.late_map_vtl0_policy.is_some(),
                "--late-map-vtl0-policy",
                VTL2,
            ),
            (self.vmbus_redirect, "--vmbus-redirect", VTL2),
            (self.get, "--get", VTL2),
            (self.no_get, "--no-get", VTL2),
            (self.pcat, "--pcat", PCAT),
        ]
        .into_iter()
        .find(|(given, _, _)| *given)
        .map(|(_, name, why)| (name, why))
    }
}
