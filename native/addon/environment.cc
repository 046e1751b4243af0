// An addon that is loaded before the other one, for what must stand in the environment when that brings in the OpenMP
// runtime, which looks only then. JavaScript cannot see to it: in a worker thread process.env is a copy.
#include <node_api.h>

#include <cstdlib>

NAPI_MODULE_INIT() {
  static_cast<void>(env);
  // Idle workers must sleep, or they would take the core that the event loop needs. What the user set stays.
  setenv("OMP_WAIT_POLICY", "passive", 0);
  return exports;
}
