// SPDX-License-Identifier: MIT
//! Fixtures shared by this crate's unit tests.

use openvmm_defs::{
    Config, EndActions, IgvmPayload, IsolationRequest, LoadMode, Machine, PciConfig, SerialBackend, Vtl2Base,
};

/// A small generic IGVM configuration.
pub(crate) fn config() -> Config {
    Config {
        load: LoadMode::Igvm {
            path: "guest.bin".into(),
            payload: IgvmPayload::Generic,
            relocation: Vtl2Base::File,
            cmdline: String::new(),
        },
        memory: 64 << 20,
        processors: 1,
        isolation: IsolationRequest::None,
        machine: Machine::Plain,
        com: [const { SerialBackend::None }; 4],
        test_exit: false,
        pci: PciConfig::default(),
        vmbus: None,
        if_uefi: None,
        vars: None,
        nvram: None,
        tpm: None,
        on: EndActions::default(),
        bios_guid: uuid::Uuid::nil(),
        deterministic: None,
        paused: false,
    }
}
