// SPDX-License-Identifier: MIT
//! Text that several pieces of assembly of this runtime share.
//!
//! Always true: what `push_saved` pushes is what `pop_saved` pops. Not here: a piece that stands once.

/// Pushes the registers that a function must keep (System V ABI).
macro_rules! push_saved {
    () => {
        "push rbx\npush rbp\npush r12\npush r13\npush r14\npush r15"
    };
}

/// Pops the registers that `push_saved` pushed.
macro_rules! pop_saved {
    () => {
        "pop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx"
    };
}
