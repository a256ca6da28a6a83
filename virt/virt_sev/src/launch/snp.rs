// SPDX-License-Identifier: MIT
//! SEV-SNP: pages are copied into private memory one run at a time (`spec/sev.md` 1.5, second list).

use super::{Launch, LaunchedVm};
use crate::cpuid;
use crate::decide::Refused;
use crate::explain::Step;
use crate::firmware::status;
use crate::host::MAP_GPA_RANGE;
use crate::pages::{Run, Staging};
use kvm_sys::bindings as kb;
use kvm_sys::{KvmError, SnpFinish, SnpPageType, Vm, VmSev, VmType};
use launch_digest::PageClass;
use launch_plan::PageKind;
use std::sync::Arc;

/// How often EAGAIN is taken for "repeat" without any progress.
const REPEATS: u32 = 1000;

impl Launch<'_> {
    pub(super) fn run_snp(&self) -> Result<LaunchedVm, Refused> {
        let system = &self.host.system;
        let vm = system
            .create_vm(VmType::Snp, self.memory)
            .map_err(self.failed(Step::CreateVm))?;
        vm.enable_cap(kb::KVM_CAP_EXIT_HYPERCALL, MAP_GPA_RANGE as u64)
            .map_err(self.failed(Step::EnableHypercalls))?;
        let sev = vm.sev(&self.host.sev);
        sev.init2(self.decision.starts.features)
            .map_err(self.failed(Step::Init))?;
        vm.map_private_memory().map_err(self.failed(Step::Memory))?;
        sev.snp_launch_start(self.decision.policy)
            .map_err(self.failed(Step::Start))?;
        let vcpus = self.vcpus(&vm)?;
        self.write(|kind| kind == PageKind::Shared)?;
        let mut notes = Vec::new();
        let mut staging = Staging::new();
        for run in &self.decision.runs {
            self.make_private(&vm, run.gpa, run.len())?;
            if run.class == PageClass::Cpuid {
                self.add_cpuid(&sev, run, &mut staging, &mut notes)?;
            } else if let Some(kind) = page_type(run.class) {
                let bytes = staging.fill(&run.pages);
                update(&sev, run.gpa, kind, bytes).map_err(|(gpa, e)| self.failed(Step::Update(gpa))(e))?;
            }
        }
        for range in &self.decision.required {
            self.make_private(&vm, range.gpa, range.len)?;
        }
        sev.snp_launch_finish(&self.finish())
            .map_err(self.failed(Step::Finish))?;
        Ok(LaunchedVm { vcpus, notes })
    }

    fn make_private(&self, vm: &Arc<Vm>, gpa: u64, len: u64) -> Result<(), Refused> {
        vm.set_private(gpa, len, true)
            .map_err(self.failed(Step::Attributes(gpa)))
    }

    fn finish(&self) -> SnpFinish<'_> {
        let endorsed = self.decision.endorsed.as_ref();
        SnpFinish {
            id_block: endorsed.map(|e| (&*e.block, &*e.auth)),
            author_key: endorsed.is_some_and(|e| e.author_key),
            host_data: self.host_data,
        }
    }

    /// A CPUID page: the file's table as it is, or ours. The firmware corrects what the processor does not
    /// have; our own table is then submitted corrected, once, and a file's is refused with every line.
    fn add_cpuid(
        &self,
        sev: &VmSev<'_>,
        run: &Run<'_>,
        staging: &mut Staging,
        notes: &mut Vec<String>,
    ) -> Result<(), Refused> {
        for (n, page) in (0u64..).zip(&run.pages) {
            let gpa = run.gpa + n * x86defs::paging::PAGE_SIZE;
            let of_file = cpuid::has_entries(page);
            let made = if of_file { None } else { Some(self.cpuid_page()?) };
            let table = staging.fill(&[made.as_ref().map_or(page, |made| &made[..])]);
            let before = table.to_vec();
            let Err((_, error)) = update(sev, gpa, SnpPageType::Cpuid, table) else {
                continue;
            };
            if error.firmware() != status::INVALID_PARAM {
                return Err(self.failed(Step::Update(gpa))(error));
            }
            let lines = cpuid::corrections(&before, table);
            if of_file || lines.is_empty() {
                let text = format!(
                    "{}: the firmware refused the cpuid page at gpa {gpa:#x}\n  {}",
                    run.origin,
                    lines.join("\n  ")
                );
                return Err(Refused::Host(text));
            }
            update(sev, gpa, SnpPageType::Cpuid, table)
                .map_err(|(gpa, e)| self.failed(Step::Update(gpa))(e))?;
            notes.extend(lines);
        }
        Ok(())
    }

    fn cpuid_page(&self) -> Result<Box<[u8; x86defs::paging::PAGE_BYTES]>, Refused> {
        let supported = self.host.system.supported_cpuid();
        let supported = supported.map_err(self.failed(Step::Vp(0)))?;
        let leaves = cpuid::leaves(&supported, self.platform, &self.host.offer, 0);
        cpuid::page(&leaves).map_err(Refused::Host)
    }
}

/// Submits pages until none is left: KVM may stop in the middle and says how far it came.
fn update(sev: &VmSev<'_>, gpa: u64, kind: SnpPageType, bytes: &mut [u8]) -> Result<(), (u64, KvmError)> {
    let mut done = 0;
    let mut idle = 0;
    while done < bytes.len() {
        let at = gpa + done as u64;
        match sev.snp_launch_update(at, kind, &mut bytes[done..]) {
            Ok(0) if idle < REPEATS => idle += 1,
            Ok(0) => return Err((at, no_progress())),
            Ok(more) => (done, idle) = (done + more, 0),
            Err(e) if e.errno() == Some(libc::EAGAIN) && idle < REPEATS => idle += 1,
            Err(e) => return Err((at, e)),
        }
    }
    Ok(())
}

fn no_progress() -> KvmError {
    KvmError::new(
        "SNP_LAUNCH_UPDATE",
        std::io::Error::other("kvm reports success again and again without taking a page"),
    )
}

const fn page_type(class: PageClass) -> Option<SnpPageType> {
    Some(match class {
        PageClass::Normal => SnpPageType::Normal,
        PageClass::Zero => SnpPageType::Zero,
        PageClass::Unmeasured => SnpPageType::Unmeasured,
        PageClass::Secrets => SnpPageType::Secrets,
        PageClass::Cpuid => SnpPageType::Cpuid,
        PageClass::ErrorRange => return None,
    })
}
