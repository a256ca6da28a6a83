// SPDX-License-Identifier: MIT
//! Puts a bound plan into a partition.
//!
//! Always true: steps go to the platform in plan order, every failure names the step's origin. Not here:
//! any decision.

use anyhow::Context;
use launch_plan::{BoundImport, BoundPlan};
use virt::LaunchTarget;
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE};

/// Applies `plan`.
pub(crate) fn apply(plan: &BoundPlan<'_>, mut target: Box<dyn LaunchTarget + '_>) -> anyhow::Result<()> {
    for import in plan.runs() {
        import_pages(&import, &mut *target).with_context(|| import.origin.to_string())?;
    }
    for (context, origin) in plan.plan().vp_contexts() {
        if let Some(state) = plan.initial_state(context.vp) {
            target
                .vp_state(context.vp, &state)
                .with_context(|| origin.to_string())?;
        }
    }
    Ok(target.finish()?)
}

/// The last page of contents goes padded with zeros: a hand-over may lie over pages that hold something.
fn import_pages(import: &BoundImport<'_>, target: &mut dyn LaunchTarget) -> Result<(), virt::LaunchError> {
    let Some(data) = import.data else {
        return target.import(import.gpa, import.len, None);
    };
    let whole = data.len() / PAGE_BYTES * PAGE_BYTES;
    let (whole, rest) = data.split_at(whole);
    let mut done = 0;
    if !whole.is_empty() {
        done = whole.len() as u64;
        target.import(import.gpa, done, Some(whole))?;
    }
    if !rest.is_empty() {
        let mut page = [0; PAGE_BYTES];
        page[..rest.len()].copy_from_slice(rest);
        target.import(import.gpa + done, PAGE_SIZE, Some(&page))?;
        done += PAGE_SIZE;
    }
    if done < import.len {
        target.import(import.gpa + done, import.len - done, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_memory::GuestMemory;
    use launch_plan::{
        Arch, Contents, HandOver, HostValues, Import, Isolation, NativeContext, Origin, PageKind,
        ParameterArea, ParameterKind, ParameterSlot, PlanBuilder, PlatformFacts, VpContext, VpState,
    };
    use virt::PlainLaunch;

    fn builder() -> PlanBuilder<'static> {
        PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64))
    }

    fn context(vp: u32) -> VpContext<'static> {
        let mut registers = NativeContext {
            rip: 0x1000 + u64::from(vp),
            ..NativeContext::default()
        };
        registers.cs.attributes.0 = 0x9B;
        VpContext {
            vp,
            gpa: 0,
            state: VpState::Native(Box::new(registers)),
        }
    }

    fn import(gpa: u64, len: u64, contents: Contents<'static>) -> Import<'static> {
        Import {
            gpa,
            len,
            large: false,
            kind: PageKind::Unmeasured,
            contents,
        }
    }

    #[test]
    fn pages_states_and_hand_over_arrive_and_the_last_page_is_padded() {
        let here = Origin::Header { index: 1, offset: 2 };
        let mut b = builder();
        let slots = vec![ParameterSlot {
            kind: ParameterKind::CommandLine,
            byte_offset: 0,
            origin: here,
        }];
        let area = ParameterArea {
            index: 0,
            initial: Default::default(),
            slots,
        };
        b.import(import(0x3000, 0x1000, Contents::Parameters(Box::new(area))), here)
            .unwrap();
        b.import(
            import(0x5000, 0x3000, Contents::Bytes(vec![7; 0x1001].into())),
            here,
        )
        .unwrap();
        b.vp_context(context(0), here).unwrap();
        b.vp_context(context(1), here).unwrap();
        let plan = b.finish();
        let mut host = HostValues::new(2);
        host.set(ParameterKind::CommandLine, vec![b'x'; 64]);
        host.hand_over = Some(HandOver {
            what: "config blob",
            gpa: 0x3000,
            blob: vec![9; 5].into(),
        });
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let launch = PlainLaunch::new(memory.clone(), 2);
        apply(&plan.bind(&host).unwrap(), Box::new(launch.clone())).unwrap();
        let read = |gpa, len| {
            let mut bytes = vec![1; len];
            memory.read(gpa, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(read(0x3000, 7), [9, 9, 9, 9, 9, 0, 0]);
        assert_eq!(read(0x6000, 2), [7, 0]);
        assert_eq!(launch.start(0).1.gpr[12], 0x3000);
        assert_eq!(launch.start(1).1.rip, 0x1001);
    }

    #[test]
    fn failures_name_the_step() {
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let mut b = builder();
        b.vp_context(
            context(3),
            Origin::Header {
                index: 7,
                offset: 0x40,
            },
        )
        .unwrap();
        let plan = b.finish();
        let target = Box::new(PlainLaunch::new(memory.clone(), 1));
        let error = apply(&plan.bind(&HostValues::new(1)).unwrap(), target).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "header 7 at file offset 0x40: vp context for vp 3, but the partition has 1 virtual processors"
        );
        let mut b = builder();
        b.import(
            import(0x20_0000, 0x1000, Contents::Zero),
            Origin::Header {
                index: 8,
                offset: 0x50,
            },
        )
        .unwrap();
        let plan = b.finish();
        let error = apply(
            &plan.bind(&HostValues::new(1)).unwrap(),
            Box::new(PlainLaunch::new(memory, 1)),
        );
        assert_eq!(
            format!("{:#}", error.unwrap_err()),
            "header 8 at file offset 0x50: access of 0x1000 bytes at gpa 0x200000 is not wholly inside ram"
        );
    }
}
