// Has node find the npm packages that an environment names, wherever its script is: `node --import=THIS script.mjs`.
//
// Those of $MUXSIM_NODE_PACKAGES/package.json answer for their own names, for `import` and `require` alike; any other
// name, and whatever the packages import themselves, goes the usual way.
import { readFileSync, realpathSync } from 'node:fs'
import * as nodeModule from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const named = process.env.MUXSIM_NODE_PACKAGES
const home = named && realpathSync(named)
const inStore = home + '/'
const names = home ? Object.keys(JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')).dependencies ?? {}) : []
const within = pathToFileURL(inStore).href
const entry = join(home ?? '/', 'package.json')

const isOurs = (specifier) => names.some((name) => specifier === name || specifier.startsWith(name + '/'))

if (names.length) {
  const load = nodeModule.default._resolveFilename
  if (nodeModule.registerHooks) {
    const parentURL = pathToFileURL(entry).href
    nodeModule.registerHooks({
      resolve: (specifier, context, next) =>
        isOurs(specifier) && !context.parentURL?.startsWith(within)
          ? next(specifier, { ...context, parentURL })
          : next(specifier, context),
    })
  } else {
    // Before node 22.15: hooks for `import` run in a thread of their own, and none are offered for `require`.
    const require = nodeModule.createRequire(entry)
    nodeModule.default._resolveFilename = function (specifier, parent, ...rest) {
      const ours = isOurs(specifier) && !parent?.filename?.startsWith(inStore)
      return ours ? require.resolve(specifier) : load.call(this, specifier, parent, ...rest)
    }
    const source = `
      let names, within, parentURL
      export const initialize = (data) => ({ names, within, parentURL } = data)
      export const resolve = (specifier, context, next) => {
        const ours = names.some((name) => specifier === name || specifier.startsWith(name + '/'))
        return ours && !context.parentURL?.startsWith(within)
          ? next(specifier, { ...context, parentURL })
          : next(specifier, context)
      }`
    nodeModule.register('data:text/javascript,' + encodeURIComponent(source), {
      data: { names, within, parentURL: pathToFileURL(entry).href },
    })
  }
}
