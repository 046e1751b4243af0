import type { CommandModule } from 'yargs';
import { type KnownModel, knownModel, knownModels, namesOf, sizeOf } from '../models/catalogue.ts';
import { shippedModels } from '../restore/model.ts';

interface Args {
  name?: string;
  json: boolean;
}

export const modelsCommand: CommandModule<object, Args> = {
  command: 'models [name]',
  describe: 'list models: the files that each needs, their sizes and licences, where their authors publish them',
  builder: (yargs) =>
    yargs
      .positional('name', { describe: 'only this one', type: 'string' })
      .option('json', { describe: 'print one JSON object a model', type: 'boolean', default: false }),
  handler: ({ name, json }) => {
    if (name === undefined) for (const own of Object.keys(shippedModels)) show(shipped(own), json);
    for (const model of name === undefined ? knownModels : [knownModel(name)]) show(model, json);
  },
};

const shipped = (name: string): KnownModel => ({
  name,
  describe: 'the restorer that comes with this package: it needs no other files (docs/model-card.md)',
  files: [],
});

function show(model: KnownModel, json: boolean): void {
  if (json) {
    console.log(JSON.stringify(model));
    return;
  }
  console.log(`${model.name}\n  ${model.describe}`);
  for (const file of model.files) {
    const { role, licence, source } = file;
    console.log(`  ${role.padEnd(11)} ${namesOf(file)}\n${' '.repeat(14)}${sizeOf(file)}, ${licence}; ${source}`);
  }
}
