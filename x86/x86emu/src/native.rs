// SPDX-License-Identifier: MIT
//! The native thunk.
