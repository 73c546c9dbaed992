// What a client has heard so far, and waiting for what it has not heard yet.

const PATIENCE = 10_000; // ms; a local server says things within a few hundred

export class Heard {
  #items = [];
  #waiting = new Set();

  /** @param item a notification, or a request that the server made: `{method, params}` */
  add(item) {
    this.#items.push(item);
    for (const waiter of this.#waiting) waiter();
  }

  /** @returns all items with this method, in order */
  all(method) {
    return this.#items.filter((item) => item.method === method);
  }

  /**
   * Waits for an item, unless it was heard already.
   * @param {string} method
   * @param {(params: any) => boolean} [matches]
   */
  async first(method, matches = () => true) {
    const find = () => this.all(method).find(({ params }) => matches(params ?? {}));
    if (find() === undefined) await this.#wait(() => find() !== undefined, method);
    return find();
  }

  #wait(isHeard, method) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(waiter);
        settle(value);
      };
      const waiter = () => isHeard() && finish(resolve);
      const error = new Error(`not heard within ${PATIENCE} ms: ${method}`);
      const timer = setTimeout(() => finish(reject, error), PATIENCE);
      this.#waiting.add(waiter);
    });
  }
}
