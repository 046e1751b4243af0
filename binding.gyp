# The addon with its CPU and null backends. Source files and instruction sets stand in sources.json, which CMakeLists.txt
# (the CUDA library) and the tests read too. `npm run build:addon` generates the operators' table and runs this with the
# headers of the running node.
{
  'target_defaults': {
    'include_dirs': ['native', 'build/generated'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': [
      '-std=c++17', '-O3', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-fvisibility=hidden',
    ],
  },
  'targets': [
    {
      'target_name': 'refl_environment',
      'sources': ['<!@(node -p "require(\'./sources.json\').environment.join(\' \')")'],
      'defines': ['NAPI_VERSION=8'],
    },
    {
      'target_name': 'refl',
      'sources': [
        '<!@(node -p "const s = require(\'./sources.json\'); [s.core, s.addon, s.null].flat().join(\' \')")',
      ],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': ['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS'],
      'ldflags': ['-fopenmp'],
      'conditions': [
        # Inline functions of the standard library that several sets compiled are weak symbols, of which the linker keeps
        # the first: the addon's own objects come before the archives, and the narrower set before the wider, so that code
        # shared with a narrower set never holds the wider one's instructions.
        ['target_arch=="x64"', {'dependencies': ['cpu_v3', 'cpu_v4']}, {'dependencies': ['cpu_base']}],
      ],
    },
  ],
  'conditions': [
    ['target_arch=="x64"', {
      'targets': [
        {
          'target_name': 'cpu_v3',
          'type': 'static_library',
              'sources': ['<!@(node -p "require(\'./sources.json\').cpu.join(\' \')")'],
          'defines': ['REFL_ISA=v3'],
          'cflags_cc': ['<!@(node -p "require(\'./sources.json\').isas.x64[0].flags.join(\' \')")'],
        },
        {
          'target_name': 'cpu_v4',
          'type': 'static_library',
              'sources': ['<!@(node -p "require(\'./sources.json\').cpu.join(\' \')")'],
          'defines': ['REFL_ISA=v4'],
          'cflags_cc': ['<!@(node -p "require(\'./sources.json\').isas.x64[1].flags.join(\' \')")'],
        },
      ],
    }, {
      'targets': [
        {
          'target_name': 'cpu_base',
          'type': 'static_library',
              'sources': ['<!@(node -p "require(\'./sources.json\').cpu.join(\' \')")'],
          'defines': ['REFL_ISA=base'],
        },
      ],
    }],
  ],
}
