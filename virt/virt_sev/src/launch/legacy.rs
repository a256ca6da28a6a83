// SPDX-License-Identifier: MIT
//! SEV and SEV-ES: pages are encrypted where they lie, save areas all at once (`spec/sev.md` 1.5, first
//! list).

use super::{Launch, LaunchedVm};
use crate::decide::Refused;
use crate::explain::Step;
use crate::host::Interface;
use crate::platform::Platform;
use kvm_sys::{Vm, VmType};
use launch_digest::PageClass;
use std::sync::Arc;

impl Launch<'_> {
    pub(super) fn run_legacy(&self) -> Result<LaunchedVm, Refused> {
        let vm = self.make_vm()?;
        let sev = vm.sev(&self.host.sev);
        sev.launch_start(self.decision.policy as u32)
            .map_err(self.failed(Step::Start))?;
        vm.map_memory().map_err(self.failed(Step::Memory))?;
        vm.register_encrypted_memory().map_err(self.failed(Step::Pin))?;
        let vcpus = self.vcpus(&vm)?;
        self.write(|_| true)?;
        for run in &self.decision.runs {
            if run.class == PageClass::Normal {
                sev.launch_update_data(run.gpa, run.len())
                    .map_err(self.failed(Step::Update(run.gpa)))?;
            }
        }
        if self.platform == Platform::SevEs {
            sev.launch_update_vmsa().map_err(self.failed(Step::Vmsa))?;
        }
        let measurement = sev.launch_measure().map_err(self.failed(Step::Measure))?;
        sev.launch_finish().map_err(self.failed(Step::Finish))?;
        let hex: String = measurement.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(LaunchedVm {
            vcpus,
            notes: vec![format!("launch measurement {hex}")],
        })
    }

    fn make_vm(&self) -> Result<Arc<Vm>, Refused> {
        let init2 = self.host.offer.interface == Interface::Init2;
        let vm_type = if init2 {
            self.platform.vm_type()
        } else {
            VmType::Default
        };
        let system = &self.host.system;
        let vm = system
            .create_vm(vm_type, self.memory)
            .map_err(self.failed(Step::CreateVm))?;
        let sev = vm.sev(&self.host.sev);
        let made = if init2 {
            sev.init2(self.decision.starts.features)
        } else {
            sev.init_legacy(self.platform == Platform::SevEs)
        };
        made.map_err(self.failed(Step::Init))?;
        Ok(vm)
    }
}
