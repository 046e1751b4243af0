// Prints 1 where the C++ compiler finds oneDNN's header, else 0: binding.gyp then builds the plain loops alone.
import { spawnSync } from 'node:child_process';

const [command, ...flags] = (process.env.CXX || 'g++').split(' ');
const probe = spawnSync(command, [...flags, '-E', '-x', 'c++', '-o', '/dev/null', '-'], {
  input: '#include <dnnl.hpp>\n',
});
process.stdout.write(probe.status === 0 ? '1' : '0');
