// SPDX-License-Identifier: MIT
//! The backend: a host that can launch one platform.

use crate::decide::{Decision, Refused, decide};
use crate::facts::HostFacts;
use crate::host::{self, Host, Unsupported};
use crate::launch::{Launch, LaunchedVm};
use crate::model;
use crate::options::Options;
use crate::platform::Platform;
use guest_memory::GuestMemory;
use kvm_model::ModelSys;
use kvm_sys::{RealSys, Sys};
use launch_plan::BoundPlan;
use std::sync::Arc;
use virt::{Capabilities, IsolatingHypervisor, LaunchError, LaunchSummary};

/// A host that can launch one platform.
pub struct Sev {
    /// The model that stands for the host.
    model: Option<Arc<ModelSys>>,
    host: Host,
    platform: Platform,
    options: Options,
    asids: u32,
}

impl std::fmt::Debug for Sev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sev {{ {}, {:?} }}", self.platform, self.host.offer)
    }
}

impl Sev {
    /// Opens this machine.
    pub fn here(platform: Platform, options: Options) -> Result<Self, Unsupported> {
        let sys: Arc<dyn Sys> = Arc::new(RealSys);
        Self::open(&sys, &HostFacts::read(), platform, options)
    }

    /// Opens a model of a host.
    pub fn on_model(
        model: &Arc<ModelSys>,
        platform: Platform,
        options: Options,
    ) -> Result<Self, Unsupported> {
        let sys: Arc<dyn Sys> = model.clone();
        let mut sev = Self::open(&sys, &model::facts(&model.host()), platform, options)?;
        sev.model = Some(model.clone());
        Ok(sev)
    }

    /// Opens the host that `sys` and `facts` are of; the error says what is missing.
    pub fn open(
        sys: &Arc<dyn Sys>,
        facts: &HostFacts,
        platform: Platform,
        options: Options,
    ) -> Result<Self, Unsupported> {
        let [_, _, most, least_sev] = facts.encryption().unwrap_or_default();
        let asids = match platform {
            Platform::Sev => (most + 1).saturating_sub(least_sev),
            Platform::SevEs | Platform::Snp => least_sev.saturating_sub(1),
        };
        Ok(Self {
            model: None,
            host: host::open(sys, facts, platform)?,
            platform,
            options,
            asids,
        })
    }
}

impl Sev {
    /// What a launched VM is, in words and numbers.
    fn summary(&self, decision: Decision<'_>, launched: &LaunchedVm) -> LaunchSummary {
        let platform = self.platform;
        let mut summary = LaunchSummary {
            by: format!("kvm as a {platform} guest of {} processors", launched.vcpus.len()),
            digest: decision.digest,
            platform_digest: None,
            policy: decision.policy,
            notes: decision.notes,
            memory: Vec::new(),
            stopped: format!(
                "the guest is launched and does not run: this program does not run {platform} guests on hardware yet, so \
                 it ends here and the guest with it"
            ),
        };
        summary.notes.extend_from_slice(&launched.notes);
        if let Some(model) = &self.model {
            model::add_to(&mut summary, model);
        }
        summary
    }
}

impl IsolatingHypervisor for Sev {
    fn capabilities(&self) -> Capabilities {
        let offer = &self.host.offer;
        // Guest memory lies below the C-bit and within what encryption leaves of the address width.
        let bits = offer.c_bit.min(52u32.saturating_sub(offer.reduced_bits));
        Capabilities {
            x2apic: false,
            deterministic: false,
            phys_bits: bits as u8,
            ..Capabilities::default()
        }
    }

    fn launch(
        &self,
        plan: &BoundPlan<'_>,
        vp_count: u32,
        memory: &GuestMemory,
    ) -> Result<LaunchSummary, LaunchError> {
        let platform = self.platform;
        let refused = |error: Refused| LaunchError::Platform(error.to_string());
        let decision =
            decide(plan, (platform, &self.host.offer), vp_count, &self.options).map_err(refused)?;
        let launch = Launch {
            host: &self.host,
            platform,
            bound: plan,
            decision: &decision,
            vp_count,
            memory,
            host_data: self.options.host_data.unwrap_or_default(),
            asids: self.asids,
        };
        let launched = launch.run().map_err(refused)?;
        Ok(self.summary(decision, &launched))
    }
}
