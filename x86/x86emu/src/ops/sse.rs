// SPDX-License-Identifier: MIT
//! SSE and SSE2.
