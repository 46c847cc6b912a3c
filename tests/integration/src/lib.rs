//! Runs real Envoys and real SPIRE for the integration tests and the demo.
