// SPDX-License-Identifier: MIT
//! A partition: the VM with its memory mapped, then its VPs.

use crate::cpuid;
use crate::host::host;
use crate::msr;
use crate::probe::{Virtualisation, host_virtualisation};
use crate::runner::{KvmRunner, World};
use crate::tsc::TscBase;
use guest_memory::GuestMemory;
use kvm_sys::bindings as kb;
use kvm_sys::{KvmError, System, Vcpu, Vm, VmType};
use std::sync::Arc;
use virt::{LaunchTarget, Partition, PartitionConfig, PlainLaunch, RunError, Runner, VpBus, VpSignals};

/// Where the identity map page and the three task state pages of VMX go if RAM leaves them free.
const VMX_PAGES: u64 = 0xFEFF_C000;
const VMX_PAGES_LEN: u64 = 0x4000;

pub(crate) struct KvmPartition {
    vm: Arc<Vm>,
    leaves: Arc<Vec<kb::kvm_cpuid_entry2>>,
    phys_bits: u8,
    config: PartitionConfig,
    signals: Arc<VpSignals>,
    launch: PlainLaunch,
    tsc: Arc<TscBase>,
    handed_out: bool,
}

impl KvmPartition {
    pub(crate) fn new(
        system: &System,
        leaves: Arc<Vec<kb::kvm_cpuid_entry2>>,
        phys_bits: u8,
        config: PartitionConfig,
    ) -> Result<Self, KvmError> {
        let vm = system.create_vm(VmType::Default, &config.memory)?;
        vm.map_memory()?;
        if host_virtualisation() == Virtualisation::Vmx {
            vm.set_vmx_pages(vmx_pages(&config.memory))?;
        }
        let msr_exits = kb::KVM_MSR_EXIT_REASON_UNKNOWN | kb::KVM_MSR_EXIT_REASON_FILTER;
        vm.enable_cap(kb::KVM_CAP_X86_USER_SPACE_MSR, msr_exits.into())?;
        vm.filter_msrs(msr::TO_BUS)?;
        if system.check_extension(kb::KVM_CAP_EXIT_ON_EMULATION_FAILURE)? > 0 {
            vm.enable_cap(kb::KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)?;
        }
        let signals = Arc::new(VpSignals::new(config.vp_count));
        let launch = PlainLaunch::new(config.memory.clone(), config.vp_count);
        Ok(Self {
            vm,
            leaves,
            phys_bits,
            config,
            signals,
            launch,
            tsc: Arc::default(),
            handed_out: false,
        })
    }

    fn runner(&self, vp: u32, bus: &Arc<dyn VpBus>) -> Result<KvmRunner, KvmError> {
        let mut vcpu = Vcpu::new(&self.vm, vp)?;
        let leaves = cpuid::for_vp(&self.leaves, vp, self.config.vp_count, &self.config.cpuid);
        vcpu.set_cpuid(&leaves)
            .map_err(|e| e.about(format_args!("vp {vp}")))?;
        let kicker = vcpu.kicker();
        self.signals.set_kick(vp, move || kicker.kick());
        let world = World {
            bus: bus.clone(),
            signals: self.signals.clone(),
            clock: self.config.clock.clone(),
            tsc: self.tsc.clone(),
            memory: self.config.memory.clone(),
            launch: self.launch.clone(),
            leaves,
            phys_bits: self.phys_bits,
        };
        KvmRunner::new(vp, vcpu, world)
    }
}

/// The highest place at or below the usual one that is not RAM.
fn vmx_pages(memory: &GuestMemory) -> u64 {
    let free = |gpa: u64| {
        (0..VMX_PAGES_LEN)
            .step_by(0x1000)
            .all(|o| !memory.is_ram(gpa + o, 0x1000))
    };
    let candidates = (0..64).map(|n| VMX_PAGES - n * VMX_PAGES_LEN);
    candidates.into_iter().find(|&gpa| free(gpa)).unwrap_or(VMX_PAGES)
}

impl Partition for KvmPartition {
    fn signals(&self) -> Arc<VpSignals> {
        self.signals.clone()
    }

    fn launch_target(&mut self) -> Box<dyn LaunchTarget + '_> {
        self.launch.restart();
        Box::new(self.launch.clone())
    }

    fn runners(&mut self, bus: Arc<dyn VpBus>) -> Result<Vec<Box<dyn Runner>>, RunError> {
        if std::mem::replace(&mut self.handed_out, true) {
            let what = "runners of a kvm partition".to_owned();
            return Err(RunError::Host {
                what,
                reason: "they were handed out already".into(),
            });
        }
        let mut runners: Vec<Box<dyn Runner>> = Vec::with_capacity(self.config.vp_count as usize);
        for vp in 0..self.config.vp_count {
            runners.push(Box::new(self.runner(vp, &bus).map_err(host)?));
        }
        Ok(runners)
    }
}
