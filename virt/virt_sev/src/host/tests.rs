// SPDX-License-Identifier: MIT
//! What each kind of host is told, and what this machine's own kernel answers. (Hosts that can launch are
//! tested on the model, `tests/hosts.rs`.)

use super::*;
use kvm_sys::RealSys;

/// An EPYC of the third generation under Linux 6.18 with everything on.
fn epyc() -> HostFacts {
    HostFacts {
        vendor: "AuthenticAMD".into(),
        max_extended_leaf: 0x8000_0028,
        leaf: [0x1F, 5 << 6 | 51, 509, 100],
        flags: Some(["sme", "sev", "sev_es", "sev_snp"].map(str::to_owned).to_vec()),
        parameters: [("sev", "Y"), ("sev_es", "Y"), ("sev_snp", "Y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        kernel: "6.18.1".into(),
    }
}

#[test]
fn each_host_has_its_own_line() {
    let with = |change: &dyn Fn(&mut HostFacts)| {
        let mut facts = epyc();
        change(&mut facts);
        facts
    };
    for (facts, platform, types, message) in [
        (
            with(&|f| f.vendor = "GenuineIntel".into()),
            Platform::Snp,
            1,
            "SEV-SNP needs an AMD EPYC host; this cpu is GenuineIntel",
        ),
        (
            with(&|f| f.leaf[0] = 0),
            Platform::Sev,
            1,
            "this AMD cpu has no SEV (CPUID 0x8000001F EAX=0x0)",
        ),
        (
            with(&|f| f.leaf[0] = 0xB),
            Platform::Snp,
            0xD,
            "this AMD cpu has no SEV-SNP (CPUID 0x8000001F EAX=0xb)",
        ),
        (
            with(&|f| f.max_extended_leaf = 0x8000_001E),
            Platform::SevEs,
            1,
            "this AMD cpu has no SEV-ES (CPUID 0x8000001F EAX=0x0)",
        ),
        (
            with(&|f| f.flags = Some(vec!["sme".into()])),
            Platform::SevEs,
            1,
            "the cpu supports SEV-ES but the system does not use it (no sev_es in /proc/cpuinfo): enable memory \
             encryption (SMEE) and the SMM lock in the firmware setup",
        ),
        (
            with(&|f| {
                f.parameters.insert("sev_snp".into(), "N".into());
            }),
            Platform::Snp,
            0xD,
            "kvm has SEV-SNP switched off: kvm_amd parameter sev_snp is N; load kvm_amd with sev_snp=1, or see the \
             kernel log for why it turned it off",
        ),
        (
            with(&|f| {
                f.kernel = "6.9.4".into();
                f.flags = Some(vec!["sme".into(), "sev".into()]);
            }),
            Platform::Snp,
            1,
            "kernel 6.9.4 has no SEV-SNP VMs (SEV and SEV-ES need 6.10, SEV-SNP 6.11)",
        ),
        (
            with(&|f| f.leaf[3] = 1),
            Platform::SevEs,
            5,
            "the firmware setup reserves no ASIDs for SEV-ES (CPUID 0x8000001F EDX=0x1); set the SEV-ES ASID limit there",
        ),
        (
            with(&|_| {}),
            Platform::SevEs,
            0x15,
            "kvm reports no SEV-ES VMs (types 0x15); ciphertext hiding has given all ASIDs of this range to SEV-SNP; \
             see the kernel log (search SEV) for \"unusable\" or \"disabled\"",
        ),
        (
            with(&|_| {}),
            Platform::Snp,
            1,
            "kvm reports no SEV-SNP VMs (types 0x1); see the kernel log (search SEV) for \"unusable\" or \"disabled\"",
        ),
    ] {
        assert_eq!(explain(&facts, platform, types), message);
    }
}

#[test]
fn missing_device_nodes_say_which_module_or_group() {
    let error = |errno| KvmError::new("/dev/x", std::io::Error::from_raw_os_error(errno));
    for (text, wanted) in [
        (
            why_no_sev_node(&error(libc::ENOENT)),
            "/dev/sev is missing: load the module ccp",
        ),
        (
            why_no_sev_node(&error(libc::EACCES)),
            "no permission on /dev/sev: join the group",
        ),
        (
            why_no_kvm(&error(libc::ENOENT), &epyc()),
            "/dev/kvm does not exist; load the module kvm_amd",
        ),
        (
            why_no_kvm(&error(libc::EACCES), &epyc()),
            "no permission on /dev/kvm",
        ),
        (why_no_kvm(&error(libc::EBUSY), &epyc()), "cannot open /dev/kvm: "),
        (
            why_no_kvm(&error(libc::ENOENT), &HostFacts::default()),
            "a memory-encrypted guest needs an AMD EPYC host; this cpu is ",
        ),
    ] {
        assert!(text.starts_with(wanted), "{text}");
    }
}

/// The machine that runs the tests: the expectation comes from what it says of itself.
#[test]
fn real_kernel_is_told_apart_for_every_platform() {
    let facts = HostFacts::read();
    let sys: Arc<dyn Sys> = Arc::new(RealSys);
    let types = System::open(sys.clone())
        .and_then(|system| system.check_extension(kb::KVM_CAP_VM_TYPES))
        .ok();
    for platform in Platform::ALL {
        let opened = open(&sys, &facts, platform);
        let eax = facts.encryption().map_or(0, |leaf| leaf[0]);
        let wanted = match types {
            Some(types) if types >> (platform.vm_type() as u32) & 1 != 0 => {
                println!("skipped: {platform}: this host may launch it");
                continue;
            }
            None => "/dev/kvm".to_owned(),
            Some(_) if !facts.is_amd() => {
                format!("{platform} needs an AMD EPYC host; this cpu is {}", facts.vendor)
            }
            Some(_) if eax & platform.cpuid_bit() == 0 => {
                format!("this AMD cpu has no {platform} (CPUID 0x8000001F EAX={eax:#x})")
            }
            Some(_) => platform.name().to_owned(),
        };
        let message = opened.unwrap_err().to_string();
        assert!(message.contains(&wanted), "{message}");
        assert!(message.ends_with(&format!("; {OTHERWISE}")), "{message}");
        println!("{message}");
    }
}

/// The real kernel's answers with processors that this machine may not have: whatever the processor says,
/// KVM's list of VM types decides.
#[test]
fn real_kernel_without_sev_is_explained_for_every_processor() {
    let sys: Arc<dyn Sys> = Arc::new(RealSys);
    let types = System::open(sys.clone()).and_then(|system| system.check_extension(kb::KVM_CAP_VM_TYPES));
    let types = match types {
        Ok(types) if types & 0b1_1100 == 0 => types,
        Ok(types) => return println!("skipped: this kernel has SEV (types {types:#x})"),
        Err(error) => return println!("skipped: {error}"),
    };
    let with = |change: &dyn Fn(&mut HostFacts)| {
        let mut facts = epyc();
        change(&mut facts);
        facts
    };
    for platform in Platform::ALL {
        for (facts, wanted) in [
            (
                with(&|f| f.vendor = "GenuineIntel".into()),
                format!("{platform} needs an AMD EPYC host; this cpu is GenuineIntel"),
            ),
            (
                with(&|f| f.leaf[0] = 0),
                format!("this AMD cpu has no {platform} (CPUID 0x8000001F EAX=0x0)"),
            ),
            (
                with(&|f| f.parameters = [(platform.flag().to_owned(), "N".to_owned())].into()),
                format!(
                    "kvm has {platform} switched off: kvm_amd parameter {} is N",
                    platform.flag()
                ),
            ),
            (
                epyc(),
                format!("kvm reports no {platform} VMs (types {types:#x}); see the kernel log"),
            ),
        ] {
            let message = open(&sys, &facts, platform).unwrap_err().to_string();
            assert!(message.starts_with(&wanted), "{message}");
        }
    }
}

#[test]
fn real_machine_without_dev_sev_says_which_module_to_load() {
    let sys: Arc<dyn Sys> = Arc::new(RealSys);
    match Handle::open(sys, Node::Sev) {
        Ok(_) => println!("skipped: this machine has /dev/sev"),
        Err(error) => {
            let expected = match error.errno() {
                Some(libc::EACCES | libc::EPERM) => "no permission on /dev/sev",
                _ => "/dev/sev is missing: load the module ccp",
            };
            assert!(why_no_sev_node(&error).starts_with(expected), "{error}");
        }
    }
}
