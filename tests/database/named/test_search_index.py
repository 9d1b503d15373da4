from tests.database.test_search_index import *
