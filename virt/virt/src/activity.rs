// SPDX-License-Identifier: MIT
//! INIT, SIPI and HLT, the same for every backend (Intel SDM volume 3, section 9.4; APM2 section 16.5).

use chipset_device::VpEvents;
use x86defs::X86State;

/// What a VP is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Executing instructions.
    Running,
    /// In HLT until an interrupt, NMI or INIT.
    Halted,
    /// After INIT (or reset, for an AP) until a SIPI.
    WaitForSipi,
}

/// What to do with a VP after its events were polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Enter the guest; inject an NMI first if set.
    Run {
        /// Inject an NMI.
        nmi: bool,
    },
    /// Replace the register state, then look again.
    Restart(Restart),
    /// Wait for attention.
    Park,
}

/// A register state change that INIT or SIPI asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// INIT on the BSP: reset state at the reset vector.
    ResetVector,
    /// INIT on an AP: reset state, not running.
    Init,
    /// SIPI: real mode at `vector << 12`.
    Sipi(u8),
}

impl Restart {
    /// The register state to load. MTRRs and PAT survive INIT.
    pub fn state(self, before: &X86State) -> X86State {
        let mut s = match self {
            Self::ResetVector | Self::Init => X86State::reset(),
            Self::Sipi(vector) => X86State::after_sipi(vector),
        };
        s.mtrr = before.mtrr;
        s.pat = before.pat;
        s
    }
}

/// Decides what a VP does next. `interruptible` says whether a waiting vector could be delivered (for
/// a halted VP: RFLAGS.IF). An NMI that arrives in wait-for-SIPI is dropped with the INIT.
pub fn next(activity: &mut Activity, is_bsp: bool, events: VpEvents, interruptible: bool) -> Step {
    if events.init {
        *activity = if is_bsp {
            Activity::Running
        } else {
            Activity::WaitForSipi
        };
        return Step::Restart(if is_bsp {
            Restart::ResetVector
        } else {
            Restart::Init
        });
    }
    match *activity {
        Activity::WaitForSipi => match events.sipi {
            Some(vector) => {
                *activity = Activity::Running;
                Step::Restart(Restart::Sipi(vector))
            }
            None => Step::Park,
        },
        Activity::Halted if events.nmi || (events.interrupt && interruptible) => {
            *activity = Activity::Running;
            Step::Run { nmi: events.nmi }
        }
        Activity::Halted => Step::Park,
        Activity::Running => Step::Run { nmi: events.nmi },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ap_runs_only_after_init_and_sipi() {
        let mut a = Activity::WaitForSipi;
        assert_eq!(
            next(
                &mut a,
                false,
                VpEvents {
                    interrupt: true,
                    nmi: true,
                    ..Default::default()
                },
                true
            ),
            Step::Park
        );
        let init = VpEvents {
            init: true,
            ..Default::default()
        };
        assert_eq!(next(&mut a, false, init, true), Step::Restart(Restart::Init));
        let sipi = VpEvents {
            sipi: Some(0x9F),
            ..Default::default()
        };
        assert_eq!(
            next(&mut a, false, sipi, true),
            Step::Restart(Restart::Sipi(0x9F))
        );
        assert_eq!(a, Activity::Running);
        assert_eq!(next(&mut a, false, sipi, true), Step::Run { nmi: false });
        let s = Restart::Sipi(0x9F).state(&X86State::reset());
        assert_eq!((s.cs.selector, s.cs.base, s.rip), (0x9F00, 0x9F000, 0));
    }

    #[test]
    fn a_halted_vp_wakes_for_an_interrupt_only_when_it_can_take_it() {
        let irq = VpEvents {
            interrupt: true,
            ..Default::default()
        };
        let mut a = Activity::Halted;
        assert_eq!(next(&mut a, true, irq, false), Step::Park);
        assert_eq!(next(&mut a, true, irq, true), Step::Run { nmi: false });
        a = Activity::Halted;
        assert_eq!(
            next(&mut a, true, VpEvents { nmi: true, ..irq }, false),
            Step::Run { nmi: true }
        );
    }

    #[test]
    fn init_on_the_bsp_goes_to_the_reset_vector() {
        let mut a = Activity::Halted;
        let init = VpEvents {
            init: true,
            ..Default::default()
        };
        assert_eq!(
            next(&mut a, true, init, false),
            Step::Restart(Restart::ResetVector)
        );
        assert_eq!(a, Activity::Running);
    }
}
