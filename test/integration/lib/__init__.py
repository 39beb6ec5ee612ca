# SPDX-License-Identifier: Apache-2.0
"""Helpers of the integration tests: real servers, artifacts, the client under test."""
