from tests.database.test_search import *
